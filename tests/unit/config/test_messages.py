"""What is wrong with a configuration is said in a user's words, with the key, what stands there, and what to write."""

import re
from typing import Any

import pytest
import yaml

from wfc_dist.config import loading, messages, reference
from wfc_dist.errors import ConfigError

TREE = """
run: {name: r}
base: {model: m}
datasets: {a: {source: x, language: es, splits: {train: t}}, b: {source: y, splits: {train: t}}}
rounds: [[a], [b]]
"""


def parsed(assignment: str) -> Any:
    """Returns the value of a key that was set as on the command line."""
    tree = yaml.safe_load(TREE)
    key, _, text = assignment.partition("=")
    loading.assign(tree, key, yaml.safe_load(text))
    value: Any = loading.parse(tree, "c.yaml")
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("lora.rank=8", "'r'"), ("lora.lora_r=8", "'r'"), ("lora.lora_alpha=8", "'alpha'"),
        ("lora.targets=q", "'target_modules'"),
        ("train.learning_rate=1", "'lr'"), ("train.epochs=3", "'max_steps'"), ("train.num_train_epochs=2", "'max_steps'"),
        ("train.per_device_train_batch_size=2", "'batch_size'"),
        ("train.gradient_accumulation_steps=2", "'gradient_accumulation'"),
        ("train.lr_scheduler_type=cosine", "'schedule'"), ("train.bf16=true", "'precision'"),
        ("train.batch_sze=1", "'batch_size'"),
        ("cluster.gpus=1", "'gpus_per_worker'"), ("cluster.num_gpus=1", "'gpus_per_worker'"), ("evaluate.beams=2", "'num_beams'"),
        ("base.path=x", "'model'"), ("datasets.a.path=x", "'source'"), ("datasets.a.lang=es", "'language'"),
        ("datasets.a.splits.validation=x", "'dev'"), ("datasets.a.columns.langage=x", "'language'"), ("bse=x", "'base'"),
        ("learning_rate=1", "train.lr"), ("lora.batch_size=1", "train.batch_size"), ("train.metric=wer", "evaluate.metric"),
        ("train.rank=8", "lora.r"), ("rank=8", "lora.r"), ("source=x", "datasets.NAME.source"),
        ("train.patience=3", "train.early_stopping.patience"), ("cluster.partition=gpu", "cluster.slurm.partition"),
        ("run.sigma=1", "lora.prior.sigma"), ("output_dir=x", "run.dir"), ("Train={}", "'train'"), ("train.LR=1", "'lr'"),
        ("train.zero_stage=2", "'strategy'"), ("cluster.slurm.mem=4", "'mem_gb'"), ("train.Batch-Size=1", "'batch_size'"),
        ("model=m", "base.model"), ("seed=1", "run.seed"), ("track=[wandb]", "run.track"),
        ("language=es", "datasets.NAME.language or evaluate.language"),
        ("lang=es", "datasets.NAME.language or evaluate.language"),
        ("batch_size=8", "train.batch_size or evaluate.batch_size"), ("trian=[1]", "'train'"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_one_that_is_meant(assignment: str, meant: str) -> None:
    key = assignment.partition("=")[0]
    with pytest.raises(ConfigError, match=re.escape(f"c.yaml: {key}: unknown key; did you mean {meant}?")):
        parsed(assignment)


@pytest.mark.parametrize(
    ("assignment", "number"),
    [
        ("train.max_steps=1e3", 1000), ("train.max_steps=1.5e3", 1500), ("train.max_steps=2E+3", 2000),
        ("train.max_steps=1_000", 1000), ("run.seed=1e1", 10), ("datasets.a.max_clips=1e2", 100), ("train.lr=1e-3", 0.001),
        ("train.lr=1e3", 1000.0), ("train.weight_decay=5e-4", 0.0005), ("lora.alpha=1e1", 10.0),
    ],
)  # fmt: skip
def test_numbers_are_taken_as_people_write_them(assignment: str, number: float) -> None:
    value = parsed(assignment)
    assert value == number and type(value) is type(number)


_IN_QUOTES = 'YAML reads no, off, yes and on as false and true: write the word in quotes, such as "no"'


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rounds=[a, b]", "['a', 'b'] is neither; write [[a, b]] for one round, or [[a], [b]] for a round each"),
        ("rounds=[[a], b]", "expected lists of data sets, a list for each round, such as [[es, it], [fr]]"),
        ("rounds=2", "2 is neither"),
        ("rounds={centralize_evry: 2}", "or {centralize_every: 2}; {'centralize_evry': 2} is neither"),
        ("rounds=[[a, no]]", _IN_QUOTES),
        ("datasets.a.language=no", f"datasets.a.language: expected a text, not false; {_IN_QUOTES}"),
        ("datasets.a.language=yes", f"expected a text, not true; {_IN_QUOTES}"),
        ("datasets.a.splits.train=off", f"expected a text, not false; {_IN_QUOTES}"),
        ("datasets.a.splits.train=1", 'expected a text, not 1; write "1" in quotes'),
        ("run.name=2024", 'run.name: expected a text, not 2024; write "2024" in quotes'),
        ("run.name=a/b", "expected a name of letters, digits, _, . and -, which begins with a letter or a digit, not 'a/b'"),
        ("run.name=", "run.name: expected a text, not null"),
        ("train.max_steps=abc", "train.max_steps: expected a whole number, not 'abc'"),
        ("train.max_steps=1e-3", "train.max_steps: expected a whole number, not '1e-3'"),
        ("train.max_steps=1.5", "train.max_steps: expected a whole number, not 1.5"),
        ("train.max_steps=true", "train.max_steps: expected a whole number, not true"),
        ("train.eval_every=yes", "train.eval_every: expected a whole number, not true"),
        ("train.max_steps=0", "train.max_steps: expected at least 1, not 0"),
        ("train.lr=fast", "train.lr: expected a number, not 'fast'"),
        ("train.lr=0", "train.lr: expected more than 0.0, not 0"),
        ("lora.dropout=2", "lora.dropout: expected less than 1.0, not 2"),
        ("train.packing=maybe", "train.packing: expected true or false, not 'maybe'"),
        ("train.schedule=cosin", "one of inverse_sqrt, inverse_step, cosine, constant, not 'cosin'; did you mean 'cosine'?"),
        ("train.betas=0.9", "train.betas: expected a list such as [a, b], not 0.9"),
        ("train.betas=[a, b]", "train.betas.0: expected a number, not 'a'\n  train.betas.1: expected a number, not 'b'"),
        ("train.early_stopping=true", "train.early_stopping: expected a block of keys, not true"),
        ("lora=8", "lora: expected a block of keys, not 8"),
        ("datasets=[a]", "datasets: expected keys and values such as {a: 1}, not ['a']"),
        ("centralize.weights=hour", "or keys and values such as {a: 1}, not 'hour'; did you mean 'hours'?"),
        ("centralize.weights={a: x}", "centralize.weights.a: expected a number, not 'x'"),
        ("centralize.scale=big", "centralize.scale: expected a number or one of inverse_task, fitted, not 'big'"),
        ("cluster.backend=Slurm", "one of ray, slurm, in_process, not 'Slurm'; did you mean 'slurm'?"),
        ("cluster.backend=RAY", "not 'RAY'; did you mean 'ray'?"),
        ("cluster.backend=in-process", "did you mean 'in_process'?"),
        ("evaluate.metric=WER", "did you mean 'wer'?"),
        ("train.strategy=ZeRO-2", "did you mean 'zero2'?"),
        ("train.precision=bfloat16", "did you mean 'bf16'?"),
        ("train.precision=float32", "did you mean 'fp32'?"),
        ("base.dtype=bf16", "did you mean 'bfloat16'?"),
        ("train.optimizer=adam", "did you mean 'adamw'?"),
        ("datasets.a.format=json", "did you mean 'jsonl'?"),
        ("datasets.a.format=tsv", "did you mean 'csv'?"),
        ("lora.variant=DoRA", "did you mean 'lora'?"),
        ("datasets.a.time_unit=msec", "did you mean 'ms'?"),
        ("datasets.a.quoting=None", "did you mean 'none'?"),
        ("centralize.method=TIES", "did you mean 'ties'?"),
        ("train.warmup_steps=5000", "train: warmup_steps (5000) must be less than max_steps (2000)"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(assignment)
    text = str(caught.value)
    assert message in text
    assert not re.search(r"Input should|valid (integer|string|list)|literal\[|list\[|constrained|\[key\]|pydantic", text)


KEYS = {key.path.rpartition(".")[2] for block in reference.blocks() for key in block.keys} | {"dev", "train", "centralize_every"}


@pytest.mark.parametrize("word", messages.OTHER_NAMES)
def test_names_of_other_tools_lead_to_keys_that_there_are(word: str) -> None:
    assert messages.OTHER_NAMES[word] in KEYS


@pytest.mark.parametrize("word", messages.OTHER_VALUES)
def test_values_of_other_tools_lead_to_values_that_there_are(word: str) -> None:
    takes = " ".join(key.takes for block in reference.blocks() for key in block.keys)
    assert f"`{messages.OTHER_VALUES[word]}`" in takes
    assert f"`{word}`" not in takes or word in ("float32", "float16", "bfloat16")
