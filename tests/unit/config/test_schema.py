"""Configuration: what is refused, and how it is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from wfc_dist.compare import settings as compare_settings
from wfc_dist.compare import sweep
from wfc_dist.config import loading
from wfc_dist.config.centralize import CentralizeConfig
from wfc_dist.config.schema import Config, EvaluateConfig
from wfc_dist.config.training import TrainConfig, marked
from wfc_dist.errors import ConfigError

ROOT = Path(__file__).parents[3]


def tree(**blocks: Any) -> dict[str, Any]:
    split = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}
    return {
        "run": {"name": "x"}, "base": {"model": "m"}, "rounds": [["a", "b"]],
        "datasets": {name: {"source": name, "splits": split} for name in "ab"}, **blocks,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"trian": {}}, "trian: unknown key; did you mean 'train'"),
        ({"train": {"lrate": 1}}, "train.lrate: unknown key; did you mean 'lr'|train.lrate: unknown key"),
        ({"train": {"warmup_step": 1}}, "train.warmup_step: unknown key; did you mean 'warmup_steps'"),
        ({"datasets": {"a": {"source": "s", "langage": "en"}}}, "datasets.a.langage: unknown key; did you mean 'language'"),
        ({"rounds": [["a", "bb"]]}, "round 1 names 'bb', which is no data set"),
        ({"rounds": [["a", "a"]]}, "twice"),
        ({"centralize": {"method": "fisher"}}, "centralize.method fisher: set train.curvature to fisher"),
        ({"centralize": {"method": "ihr"}, "train": {"curvature": "fisher"}}, "ihr: set train.curvature to kronecker"),
        ({"rounds": []}, "at least one data set"),
        ({"rounds": {"centralize_every": 0}}, "centralize_every must be 1 or more"),
        ({"lora": {"variant": "dora"}}, "lora.variant"),
        ({"lora": {"r": 0}}, "lora.r"),
        ({"lora": {"variant": "full"}}, "set dropout to 0, not 0.05"),
        ({"lora": {"variant": "full", "dropout": 0, "prior": {}}}, "variant full has none: leave prior out"),
        ({"lora": {"variant": "cssvd"}}, "variant cssvd turns the weights themselves, .*set dropout to 0, not 0.05"),
        ({"lora": {"variant": "cssvd", "dropout": 0, "prior": {}}}, "variant cssvd has none: leave prior out"),
        ({"lora": {"tail": 1.5}}, "lora.tail"),
        ({"train": {"strategy": "fsdp"}}, "train.strategy"),
        ({"train": {"warmup_steps": 9, "max_steps": 9}}, "must be less than max_steps"),
        ({"train": {"early_stopping": {"patience": 2}}}, "early_stopping needs eval_every"),
        ({"train": {"ewc": {}}}, "set curvature to fisher, not none"),
        ({"train": {"ewc": {}, "curvature": "kronecker"}}, "set curvature to fisher, not kronecker"),
        ({"train": {"ewc": {}, "curvature": "both", "strategy": "zero3"}}, "zero3 shards them"),
        ({"train": {"curvature": "both", "curvature_at": "base"}}, "curvature_at base .* set curvature to kronecker, not both"),
        ({"train": {"optimizer": "sgd", "strategy": "zero1"}}, "optimizer sgd works with strategy ddp, not zero1"),
        ({"train": {"distillation": {"weight": 1.5}}}, "train.distillation.weight"),
        (
            {"train": {"distillation": {"temprature": 2}}},
            "temprature: unknown key; did you mean 'temperature'",
        ),
        ({"lora": {"prior": {"sigma": 0}}}, "lora.prior.sigma"),
        ({"lora": {"prior": {}}, "train": {"strategy": "zero0"}}, "use train.strategy ddp"),
        ({"lora": {"prior": {}}, "train": {"gradient_checkpointing": True}}, "without train.gradient_checkpointing"),
        ({"centralize": {"weights": {"a": 1}}}, "no weight for b"),
        ({"centralize": {"weights": {"a": 0, "b": 0}}}, "sum > 0"),
        ({"centralize": {"weights": {"a": 1e308, "b": 1e308}}}, "finite sum > 0"),
        ({"evaluate": {"protected": {"a": {"source": "s", "splits": {"test": "t"}}}}}, "also a training data set"),
        ({"evaluate": {"protected": {"p": {"source": "s"}}}}, "needs a test split"),
        ({"datasets": {"../x": {"source": "s"}}}, "datasets"),
        ({"run": {"name": "a/b"}}, "run.name"),
        ({"cluster": {"gpus_per_worker": 2}}, "set workers_per_trainer to the GPUs of a trainer"),
        ({"cluster": {"gpus_per_worker": 0.5, "workers_per_trainer": 2}}, "cannot share a GPU"),
        ({"cluster": {"wait_for_node": 2}}, "cluster.wait_for_node: unknown key; did you mean 'wait_for_nodes'"),
    ],
)
def test_wrong_configurations_are_refused_by_name(blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loading.parse(tree(**blocks))


def test_centralize_every_takes_data_sets_in_order() -> None:
    assert loading.parse(tree(rounds={"centralize_every": 1})).round_list() == [["a"], ["b"]]


def test_overrides_are_yaml_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tree()))
    loaded = loading.load_config(
        path, ["train.lr=1e-4", "train.early_stopping={metric: error}", "train.eval_every=5", "base.revision=null"]
    )
    assert loaded.train.lr == 1e-4 and loaded.train.early_stopping and loaded.train.early_stopping.metric == "error"
    for override, message in (("train.lr", "not key.path=value"), ("run.name.x=1", "is a value"), ("train.lrr=1", "unknown key")):
        with pytest.raises(ConfigError, match=message):
            loading.load_config(path, [override])
    with pytest.raises(ConfigError, match="cannot read"):
        loading.load_config(tmp_path / "none.yaml")
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        loading.load_config(path)


def test_changed_keys_leaves_out_what_a_resume_may_change() -> None:
    old = loading.parse(tree()).model_dump(mode="json")
    new = loading.parse(tree(train={"lr": 2e-3}, cluster={"max_failures": 9, "threads_per_worker": 2})).model_dump(mode="json")
    assert loading.changed_keys(old, new) == ["cluster.threads_per_worker", "train.lr"]
    inside = {"backend": "slurm", "slurm": {"partition": "long"}, "node_labels": {"zone": "a"}}
    assert loading.changed_keys(old, loading.parse(tree(cluster=inside)).model_dump(mode="json")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    tree = loading.read_tree(path)
    if "compare" in tree:
        configs = [planned.config for planned in compare_settings.load(path).runs]
    elif "sweep" in tree:
        configs = [planned.config for planned in sweep.load(path).comparison.runs]
    else:
        configs = [loading.load_config(path)]
    assert all(config.round_list() for config in configs)


def test_schema_names_every_block() -> None:
    assert set(Config.model_json_schema()["properties"]) == {
        "run", "base", "datasets", "rounds", "lora", "train", "centralize", "cluster", "evaluate",
    }  # fmt: skip


def test_what_a_change_of_a_field_leaves_as_it_is() -> None:
    cluster = (
        "address backend cache_dir centralizer_ranks cpus_per_worker gpus_per_worker hang_timeout_s max_failures max_trainers"
    )
    cluster += " node_failures node_labels node_rest_s on_drain slurm start_timeout_s wait_for_nodes"
    assert marked(Config, "resume") == {
        "run.name",
        "run.dir",
        "run.pool",
        "run.notify",
        "run.track",
        "train.loader_workers",
        "datasets.*.licence",
        "evaluate.protected.*.licence",
        *(f"cluster.{key}" for key in cluster.split()),
    }
    remedies = "lr warmup_steps precision max_grad_norm max_update_ratio"
    assert marked(TrainConfig, "remedy") == set(remedies.split())
    assert marked(CentralizeConfig, "remedy") == {"scale", "quorum", "late", "gate"}
    checkpoints = "checkpoint_every curvature curvature_at curvature_loss curvature_windows gradient_checkpointing"
    checkpoints += " loader_workers max_update_ratio strategy"
    assert marked(TrainConfig, "state") == set(checkpoints.split())
    assert marked(TrainConfig, "adapter") == {"checkpoint_every", "max_update_ratio", "loader_workers", "replay"}
    assert marked(Config, "figures") == {"evaluate.adapters", "evaluate.batch_size", "evaluate.interim"}


def with_metrics(**metrics: str | None) -> dict[str, Any]:
    """Returns the blocks of a configuration whose data sets name these metrics."""
    data = tree()["datasets"]
    return {"datasets": {name: {**data[name], "metric": metrics.get(name)} for name in data}}


def test_a_data_set_is_scored_with_the_metric_that_it_names() -> None:
    protected = {"p": {"source": "p", "splits": {"test": "t"}, "metric": "cer"}}
    config = loading.parse(tree(**with_metrics(b="mer"), evaluate={"num_beams": 3, "protected": protected}))
    blocks = {name: config.evaluate.of(dataset) for name, dataset in config.test_sets().items()}
    assert {name: block.metric for name, block in blocks.items()} == {"a": "wer", "b": "mer", "p": "cer"} == config.metrics()
    assert blocks["a"] is config.evaluate and {block.num_beams for block in blocks.values()} == {3}
    assert all(block.decoding() == config.evaluate.decoding() for block in blocks.values()), "a metric changes no hypothesis"


def test_a_record_has_one_metric_where_all_sets_agree_and_else_that_of_each() -> None:
    assert loading.parse(tree()).metric_record() == "wer"
    assert loading.parse(tree(**with_metrics(a="mer", b="mer"))).metric_record() == "mer"
    mixed = loading.parse(tree(**with_metrics(b="mer")))
    assert mixed.metric_record() == {"a": "wer", "b": "mer"} and mixed.metric_record(["b"]) == "mer"
    untested = loading.parse(tree(datasets={name: {"source": name, "splits": {"train": "t"}} for name in "ab"}))
    assert untested.metric_record() == "wer"


def test_a_mix_is_scored_with_one_metric() -> None:
    def mixed(own: str | None, part: str | None, splits: dict[str, str]) -> Config:
        parts = {name: {"source": name, "splits": splits, "metric": metric} for name, metric in (("x", own), ("y", part))}
        both = {"train": "t", "test": "e"}
        return loading.parse(
            tree(rounds=[["m"]], datasets={"m": {"format": "mix", "parts": parts, "splits": both, "metric": own}})
        )

    tested, trained = {"train": "t", "test": "e"}, {"train": "t"}
    for own in (None, "cer"):
        with pytest.raises(ConfigError, match=r"parts\.y\.metric: mer, .*set metric of the mix to mer"):
            mixed(own, "mer", tested)
        assert mixed(own, None, tested).metrics() == {"m": own or "wer"}
        assert mixed(own, "mer", trained).metrics() == {"m": own or "wer"}
    assert mixed("mer", "mer", tested).metrics() == {"m": "mer"}


def test_another_metric_of_a_data_set_is_another_configuration() -> None:
    old, new = (loading.parse(tree(**with_metrics(b=metric))).model_dump(mode="json") for metric in (None, "mer"))
    assert loading.changed_keys(old, new) == ["datasets.b.metric"]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({}, 0),
        ({"threads_per_worker": 4}, 0),
        ({"cpus_per_worker": 4, "threads_per_worker": 4}, 0),
        ({"cpus_per_worker": 4, "threads_per_worker": 3}, 1),
        ({"cpus_per_worker": 64, "threads_per_worker": 2}, 1),
        ({"cpus_per_worker": 1.5}, 0),
        ({"gpus_per_worker": 1}, 1),
        ({"gpus_per_worker": 1, "cpus_per_worker": 3, "threads_per_worker": 3}, 2),
        ({"gpus_per_worker": 0.5, "cpus_per_worker": 0.5}, 1),
        ({"gpus_per_worker": 1, "cpus_per_worker": 64}, 4),
    ],
    ids=str,
)
def test_auto_takes_loader_threads_where_cores_are_free(cluster: dict[str, Any], expected: int) -> None:
    config = loading.parse(tree(cluster=cluster))
    assert config.train.loader_workers == "auto" and config.cluster.loader_threads() == expected


@pytest.mark.parametrize("value", [-1, "many", 1.5, None])
def test_loader_workers_is_a_number_or_auto(value: Any) -> None:
    assert loading.parse(tree(train={"loader_workers": 3})).train.loader_workers == 3
    with pytest.raises(ConfigError, match=r"train\.loader_workers"):
        loading.parse(tree(train={"loader_workers": value}))


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({}, 200), ({"max_steps": 201}, 200), ({"max_steps": 200}, 20), ({"max_steps": "1e2"}, 10), ({"max_steps": 1}, 0),
        ({"max_steps": 4}, 1), ({"max_steps": 30, "warmup_steps": 5}, 5), ({"max_steps": 30, "warmup_steps": 0}, 0),
        ({"warmup_steps": 0.1}, 200), ({"warmup_steps": 0.05, "max_steps": 500}, 25), ({"warmup_steps": "1e-1"}, 200),
        ({"warmup_steps": 0.9999, "max_steps": 10}, 9), ({"warmup_steps": 0.001, "max_steps": 10}, 1),
        ({"warmup_steps": 100.0}, 100), ({"warmup_steps": "1e2"}, 100), ({"warmup_steps": 0.5, "max_steps": 1}, 0),
    ],
)  # fmt: skip
def test_warm_up_is_a_number_of_steps_or_a_share_of_them(train: dict[str, Any], steps: int) -> None:
    config = loading.parse(tree(train=train))
    assert (config.train.warmup_steps, type(config.train.warmup_steps)) == (steps, int)
    assert loading.parse(config.model_dump(mode="json")) == config, "what a run records reads as the same"


@pytest.mark.parametrize("warmup", [1.0, 1.5, -0.1, float("nan"), "10%", "a tenth", True, None, [1]])
def test_another_warm_up_is_refused(warmup: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"train.warmup_steps: expected a number of steps, or a share of max_steps .* such as 0.1"
    ):
        loading.parse(tree(train={"warmup_steps": warmup}))
    with pytest.raises(ConfigError, match=r"train.max_steps: expected at least 1, not 0$"):
        loading.parse(tree(train={"warmup_steps": 0.1, "max_steps": 0}))
    with pytest.raises(ConfigError, match=r"warmup_steps \(30\) must be less than max_steps \(30\)"):
        loading.parse(tree(train={"warmup_steps": 30, "max_steps": 30}))


@pytest.mark.parametrize(
    ("key", "value"), [("train.loader_workers", True), ("centralize.scale", True), ("train.warmup_steps", -1), ("lora.r", True)]
)
def test_true_is_no_number_where_there_is_a_choice(key: str, value: Any) -> None:
    wrong = tree()
    loading.assign(wrong, key, value)
    with pytest.raises(ConfigError, match=key):
        loading.parse(wrong)


@pytest.mark.parametrize(("samples", "intervals"), [(1000, True), (1, True), (0, False)])
def test_samples_of_configurations_of_earlier_versions_say_whether_there_are_intervals(samples, intervals):
    assert EvaluateConfig.model_validate({"bootstrap_samples": samples}).intervals is intervals
    assert EvaluateConfig.model_validate({"bootstrap_samples": samples, "intervals": True}).intervals is True


@pytest.mark.parametrize("samples", [-1, 0.5, True, "many"])
def test_samples_that_were_never_allowed_are_refused(samples):
    with pytest.raises(ValueError, match="is no number of samples; write intervals: true or false"):
        EvaluateConfig.model_validate({"bootstrap_samples": samples})
