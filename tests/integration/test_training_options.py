"""What `train` and `lora` offer beside the plain loss: exact resuming, one result from any gang, and whole runs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from processes import kill_tree, start_wfc, wait_for, wfc
from safetensors.torch import load_file
from training_gang import make_inputs, make_job, order, run_gang
from transformers import WhisperForConditionalGeneration

from wfc_dist.centralize import offline
from wfc_dist.compare import systems
from wfc_dist.coordinator.history import forget
from wfc_dist.data.batching import TrainingWindows
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError, Interrupted
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable
from wfc_dist.training import curvature
from wfc_dist.training import model as models
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.trainer import train_adapter
from wfc_dist.training.world import World, join_world
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.warm_base import WarmBase

EXACT = {"dropout": 0.0}
DISTILLATION = {"distillation": {"weight": 0.5, "temperature": 2.0}}
EWC = {"ewc": {"weight": 50.0}, "curvature": "fisher", "past": ["past-1", "past-2"]}
SGD = {"optimizer": "sgd", "schedule": "inverse_step", "warmup_steps": 0, "lr": 0.5}
PRIOR = {"lora": {"dropout": 0.1, "prior": {"sigma": 0.05, "beta": 1e-2}}}
FULL = {"lora": {"variant": "full", "dropout": 0.0, "target_modules": systems.LINEAR}, "lr": 1e-3}
CSSVD = {"lora": {"variant": "cssvd", "dropout": 0.0, "target_modules": systems.LINEAR}, "lr": 1e-2}
OPTIONS: dict[str, dict[str, Any]] = {
    "distillation": DISTILLATION, "ewc": EWC, "sgd": SGD, "prior": PRIOR, "full": FULL, "cssvd": CSSVD,
}  # fmt: skip
TOLERANCE = 1e-5
"""Relative difference of two adapters, Frobenius norm; see test_training_gang."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    names = models.lora_layers(models.build(WarmBase(make_job(folder, "unused").base), make_job(folder, "unused").lora, 1))
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        staged = durable.staging_path(folder / f"past-{seed}", 1)
        curvature.write(staged, {f"{name}.fisher": torch.rand(32, 32, generator=generator) for name in names})
        durable.commit_folder(staged, folder / f"past-{seed}", {})
    return folder


@pytest.fixture(scope="module")
def warm(inputs: Path) -> WarmBase:
    return WarmBase(make_job(inputs, "unused").base)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    before = dict(os.environ)
    yield join_world(1, 0, 0, "127.0.0.1", 0)
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def rows(job: TrainingJob) -> list[dict[str, Any]]:
    """Returns the metrics log, without the seconds that a step took."""
    logged = [json.loads(line) for line in Path(job.metrics_file).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("step_s", "data_wait_s")} for row in logged]


def weights(inputs: Path, name: str) -> dict[str, torch.Tensor]:
    """Returns the factors of an adapter without the identities of variant full."""
    tensors = load_file(inputs / name / "adapter" / peft_folder.WEIGHTS)
    return {key: value for key, value in tensors.items() if not torch.equal(value, torch.eye(len(value)))}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    squares = torch.tensor([[(a[key] - b[key]).square().sum(), a[key].square().sum()] for key in a]).double()
    return float((squares[:, 0].sum() / squares[:, 1].sum()).sqrt())


@pytest.mark.parametrize("option", OPTIONS)
def test_resuming_is_exact_with_every_option(inputs: Path, warm: WarmBase, world: World, option: str) -> None:
    straight, stopped = (make_job(inputs, f"{option}-{kind}", eval_every=3, **OPTIONS[option]) for kind in ("whole", "stopped"))
    expected = train_adapter(straight, warm, world)
    done: list[int] = []

    with pytest.raises(Interrupted, match="stopped at step 3"):
        train_adapter(stopped, warm, world, lambda progress: done.append(progress.step), lambda: 2 in done)
    torch.manual_seed(99)  # another process would have other generators
    result = train_adapter(stopped, warm, world)

    assert result.resumed_from == 3
    assert result.sha256 == expected.sha256 != train_adapter(make_job(inputs, "plain"), warm, world).sha256
    assert rows(stopped) == rows(straight)
    penalties = [row.get("penalty") for row in rows(straight) if "loss" in row]
    assert all(penalty is not None for penalty in penalties) == (option in ("ewc", "prior"))
    assert any(penalties) == (option in ("ewc", "prior"))  # zero in EWC's first step


def test_without_earlier_rounds_there_is_no_penalty(inputs: Path, warm: WarmBase, world: World) -> None:
    first = train_adapter(make_job(inputs, "first-round", **(EWC | {"past": []})), warm, world)

    assert first.sha256 == train_adapter(make_job(inputs, "plain"), warm, world).sha256


def test_a_penalty_keeps_the_update_small(inputs: Path, warm: WarmBase, world: World) -> None:
    def norm(name: str, **settings: Any) -> float:
        train_adapter(make_job(inputs, name, **settings), warm, world)
        factors = peft_folder.read_factors(inputs / name / "adapter").values()
        return sum(float((item.scaling * item.b_OR @ item.a_RI).square().sum()) for item in factors) ** 0.5

    assert norm("held", **(EWC | {"ewc": {"weight": 1e4}})) < 0.5 * norm("plain")


def test_whole_weights_are_held_by_earlier_rounds_and_taught_by_the_base(inputs: Path, warm: WarmBase, world: World) -> None:
    first = make_job(inputs, "full-first", curvature="both", curvature_windows=3, **FULL)
    train_adapter(first, warm, world)
    durable.commit_folder(Path(first.output_dir), inputs / "full-past", {})
    held = FULL | {"ewc": {"weight": 1e7}, "curvature": "fisher", "past": ["full-past"]}

    for name, settings in (("full-free", FULL), ("full-held", held), ("full-taught", FULL | DISTILLATION)):
        train_adapter(make_job(inputs, name, **settings), warm, world)

    norms = {name: sum(float(value.square().sum()) for value in weights(inputs, f"full-{name}").values()) ** 0.5
             for name in ("free", "held", "taught")}  # fmt: skip
    assert norms["held"] < 0.7 * norms["free"] and norms["taught"] != norms["free"]


def test_the_prior_leaves_a_plain_adapter(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "prior-plain", max_steps=2, **PRIOR)

    result = train_adapter(job, warm, world)

    state = load_file(Path(job.checkpoint_dir).parent / "adapter" / peft_folder.WEIGHTS)
    assert result.num_trainable == 2 * sum(value.numel() for value in state.values())
    assert len(peft_folder.read_factors(Path(job.output_dir))) == 12
    PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(job.base.path), job.output_dir)


def test_sgd_with_inverse_step_is_the_online_running_average(inputs: Path, warm: WarmBase, world: World) -> None:
    settings = SGD | {"lr": 2.0, "weight_decay": 0.0, "max_grad_norm": 1e9, "max_steps": 5}
    job = make_job(inputs, "average", lora=EXACT, **settings)
    train_adapter(job, warm, world)

    # arXiv 2306.10860: after every step theta_bar = theta / t + (1 - 1/t) theta_bar, written back. Float64, Whisper's own loss.
    model = models.build(warm, job.lora, job.init_seed)
    windows = TrainingWindows(open_split("tones", job.data, "train"), job.train, warm.processor, job.data_seed)
    average = {name: value.detach().double() for name, value in models.lora_parameters(model).items()}
    start = dict(average)
    for t in range(1, 6):
        batches = windows.micro_batches(t - 1, 0, 1)
        sizes = [int((batch["labels"] != -100).sum()) for batch in batches]
        model.zero_grad()
        for batch, size in zip(batches, sizes, strict=True):
            (model(**batch).loss * size / sum(sizes)).backward()
        for name, parameter in models.lora_parameters(model).items():
            theta = average[name] - 2.0 * parameter.grad.double()
            average[name] = theta / t + (1 - 1 / t) * average[name]
            parameter.data = average[name].float()

    assert distance(average, start) > 0.01
    assert distance(average, weights(inputs, "average")) < TOLERANCE


@pytest.mark.parametrize("kind", ["fisher", "both"])
def test_curvature_lies_beside_the_adapter_and_changes_nothing_in_it(
    inputs: Path, warm: WarmBase, world: World, kind: str
) -> None:
    job = make_job(inputs, f"curved-{kind}", eval_every=3, curvature=kind)

    result = train_adapter(job, warm, world)

    output = Path(job.output_dir)
    assert result.sha256 == train_adapter(make_job(inputs, "plain"), warm, world).sha256
    assert sorted(path.name for path in output.iterdir()) == sorted([*peft_folder.FILES, peft_folder.STATISTICS])
    manifest = durable.commit_folder(output, inputs / f"committed-{kind}", {})
    assert peft_folder.STATISTICS in manifest["files"]


def test_a_stop_while_curvature_is_measured_measures_it_again(inputs: Path, warm: WarmBase, world: World) -> None:
    whole, stopped = (make_job(inputs, f"measured-{kind}", curvature="both", curvature_windows=4) for kind in ("whole", "twice"))
    train_adapter(whole, warm, world)
    done: list[int] = []

    with pytest.raises(Interrupted, match="stopped at step 8"):
        train_adapter(stopped, warm, world, lambda progress: done.append(progress.step), lambda: 8 in done)
    assert not list(Path(stopped.output_dir).iterdir())
    result = train_adapter(stopped, warm, world)

    assert (result.resumed_from, result.steps) == (8, 8)
    for name in (peft_folder.WEIGHTS, peft_folder.STATISTICS):
        assert (Path(stopped.output_dir) / name).read_bytes() == (Path(whole.output_dir) / name).read_bytes()


ZERO = ("zero0", "zero1", "zero2", "zero3")
STRATEGIES = {"distillation": ZERO, "ewc": ZERO[:3], "full": ZERO, "cssvd": ZERO}
SHORT = {"lora": EXACT, "max_steps": 4}


@pytest.fixture(scope="module")
def pair(inputs: Path) -> dict[str, list[Any]]:
    """Results of one gang of two, by name: [rank 0, rank 1]."""
    orders = [order(f"two-{option}", **(SHORT | OPTIONS[option])) for option in ("distillation", "ewc", "sgd", "full", "cssvd")]
    orders += [
        order(f"two-{option}-{strategy}", strategy=strategy, **(SHORT | OPTIONS[option]))
        for option, strategies in STRATEGIES.items()
        for strategy in strategies
    ]
    for option in ("ewc", "sgd", "prior", "full", "cssvd"):
        orders += [
            order(f"two-{option}-whole", **OPTIONS[option]),
            order(f"two-{option}-stopped", stop_at=3, **OPTIONS[option]),
            order(f"two-{option}-stopped", **OPTIONS[option]),
        ]
    results = run_gang(inputs, 2, orders)
    return {item["name"]: result for item, result in zip(orders, results, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("option", ["distillation", "ewc", "sgd", "full", "cssvd"])
def test_two_ranks_train_what_one_does(
    inputs: Path, warm: WarmBase, world: World, pair: dict[str, list[Any]], option: str
) -> None:
    train_adapter(make_job(inputs, f"one-{option}", batch_size=2, **(SHORT | OPTIONS[option])), warm, world)

    assert len({item["sha256"] for item in pair[f"two-{option}"]}) == 1
    assert distance(weights(inputs, f"one-{option}"), weights(inputs, f"two-{option}")) < TOLERANCE


@pytest.mark.slow
def test_accumulation_does_not_change_a_penalty(inputs: Path, warm: WarmBase, world: World) -> None:
    for name, sizes in (("at-once", (4, 1)), ("in-parts", (1, 4))):
        settings = EWC | SHORT | dict(zip(("batch_size", "gradient_accumulation"), sizes, strict=True))
        train_adapter(make_job(inputs, name, **settings), warm, world)

    assert distance(weights(inputs, "at-once"), weights(inputs, "in-parts")) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("option", "strategy"), [(option, name) for option, names in STRATEGIES.items() for name in names])
def test_sharding_trains_the_same_adapter(inputs: Path, pair: dict[str, list[Any]], option: str, strategy: str) -> None:
    assert distance(weights(inputs, f"two-{option}"), weights(inputs, f"two-{option}-{strategy}")) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("option", ["ewc", "sgd", "prior", "full", "cssvd"])
def test_a_gang_resumes_exactly(pair: dict[str, list[Any]], option: str) -> None:
    resumed, whole = pair[f"two-{option}-stopped"], pair[f"two-{option}-whole"]

    assert [item["resumed_from"] for item in resumed] == [3, 3]
    assert len({item["sha256"] for item in (*resumed, *whole)}) == 1


@pytest.mark.slow
def test_curvature_does_not_depend_on_the_gang(inputs: Path, warm: WarmBase, world: World, pair: dict[str, list[Any]]) -> None:
    job = make_job(inputs, "two-ewc", **(EWC | SHORT))
    windows = TrainingWindows(open_split("tones", job.data, "train"), job.train, warm.processor, job.data_seed)

    found = curvature.measure(job, warm, weights(inputs, "two-ewc"), windows, lambda: False)

    written = load_file(Path(job.output_dir) / peft_folder.STATISTICS)
    assert found is not None and found.keys() == written.keys()
    assert all(torch.equal(value, written[name]) for name, value in found.items())


@pytest.mark.slow
def test_ihr_takes_what_the_second_round_measured_at_its_base(tmp_path: Path) -> None:
    train = {"curvature": "kronecker", "curvature_at": "base", "curvature_windows": 2}
    blocks = {"centralize": {"method": "ihr"}, "cluster": {"backend": "in_process"}, "train": train}
    wfc("run", tiny.make_config(tmp_path, rounds=[["a", "b"], ["c", "d"]], **blocks), "--plain")

    paths = RunPaths(tmp_path / "runs" / "tiny")
    first, second = ([paths.adapter(index, name) for name in names] for index, names in ((1, "ab"), (2, "cd")))
    assert not any((folder / peft_folder.STATISTICS).exists() for folder in first)
    measured = [load_file(folder / peft_folder.STATISTICS) for folder in second]
    assert all(torch.equal(value, measured[1][key]) for key, value in measured[0].items()) and len(measured[0]) == 2 * 12
    for method, is_same in (("ihr", True), ("mean", False)):
        previous = second[:1] if is_same else []
        offline.average(second, tmp_path / method, method=method, previous=previous)
        found, expected = (base_chain.read_delta(folder) for folder in (tmp_path / method, paths.delta(2)))
        assert all(torch.equal(found[name].dense(), expected[name].dense()) for name in expected) == is_same
    with pytest.raises(InputError, match=r"train.curvature_at: later adapters of .* have measured clips of a, too"):
        forget(paths.run_dir, "a")


@pytest.mark.slow
def test_ewc_holds_the_second_round_of_a_run_wherever_it_lies(tmp_path: Path) -> None:
    train = {"curvature": "both", "curvature_windows": 3, "ewc": {"weight": 1e4}}
    config = tiny.make_config(tmp_path, rounds=[["a", "b"], ["c"]], train=train)
    wfc("run", config, "--plain")
    local = RunPaths(tmp_path / "runs" / "tiny")
    remote = ("run", config, f"run.dir=file://{tmp_path}/remote", "--plain")

    # Round 2 goes on where nothing of round 1 is, which is what another machine is like.
    held = tmp_path / "held"
    one, two = (f"cluster.cache_dir={tmp_path / name}" for name in ("one", "two"))
    process = start_wfc(*remote, one, log=tmp_path / "log", WFC_HOLD_AT=f"evaluate:4={held}")
    assert wait_for(held, process)
    kill_tree(process)
    assert not (tmp_path / "remote" / "tiny" / "round-0002" / "adapters").exists()
    found = wfc(*remote, two).stdout.strip()

    assert [durable.is_committed(local.base(index)) for index in (1, 2)] == [True, True]
    assert json.loads((Path(found) / durable.MANIFEST).read_text())["sha256"] == Run(local.run_dir).base().sha256
    files = durable.verify_folder(local.adapter(1, "a"))["files"]
    assert peft_folder.STATISTICS in files
    penalties = {name: [json.loads(line).get("penalty") for line in local.curve(index, name).read_text().splitlines()]
                 for index, name in ((1, "a"), (2, "c"))}  # fmt: skip
    assert penalties["a"] == [None] * 4 and penalties["c"][0] == 0.0 and all(penalties["c"][1:])
