"""adapter_config.json: everything but `base + scaling * B @ A` is refused by its name, whatever stands in the file."""

import dataclasses
import json
import os
import re
from pathlib import Path

import peft
import pytest
import torch

from wfc_dist.errors import InputError
from wfc_dist.weights import adapter_config, peft_folder
from wfc_dist.weights.adapter_config import CONFIG

MODULES = ("model.encoder.layers.0.self_attn.q_proj", "model.decoder.layers.1.fc1")


def make_adapter(folder: Path, **keys: object) -> Path:
    """Writes a tiny adapter whose configuration is PEFT's own, with `keys` on top."""
    folder.mkdir()
    state = {f"base_model.model.{module}.lora_{side}.weight": torch.ones(2, 2) for module in MODULES for side in "AB"}
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "fc1"]).to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else getattr(value, "value", value) for key, value in config.items()}
    peft_folder.write_peft(folder, state, plain | keys)
    return folder


def scaling_of(folder: Path) -> float:
    return peft_folder.read_factors(folder)[MODULES[0]].scaling


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        peft_folder.read_factors(folder)
    assert str(folder) in caught.value.message
    return caught.value.message


def test_every_key_of_the_installed_peft_was_looked_at() -> None:
    known = adapter_config._CHECKED | adapter_config._SAYS_NOTHING_OF_THE_UPDATE | adapter_config._OTHER_MODEL.keys()
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= known


HARMLESS: list[dict] = [
    {},
    *({"init_lora_weights": kind} for kind in (True, False, None, "gaussian", "orthogonal", "eva", "mica")),
    {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
    {"init_lora_weights": True, "corda_config": {"sample_count": 256}, "lora_ga_config": {"direction": "ArB2r"}},
    {"target_modules": "(a+)+$", "exclude_modules": "(a+)+$", "layers_to_transform": [1], "layers_pattern": "layers"},
    {"lora_dropout": 0.1, "task_type": "SEQ_2_SEQ_LM", "auto_mapping": {}, "revision": "main", "peft_version": "9.9"},
    {"enable_lora": None, "merge_weights": True},  # of early releases
    {"use_dora": False, "modules_to_save": [], "trainable_token_indices": None, "alora_invocation_tokens": []},
    {"added_by_a_later_peft": None, "another": False, "a_third": [], "a_fourth": "", "a_fifth": {}},
    {"rank_pattern": None, "alpha_pattern": {}},
]


@pytest.mark.parametrize("keys", HARMLESS, ids=str)
def test_what_leaves_the_update_as_it_is_is_read(tmp_path: Path, keys: dict) -> None:
    assert scaling_of(make_adapter(tmp_path / "a", **keys)) == 3.0


def test_early_releases_lack_most_keys(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}))
    assert scaling_of(folder) == 3.0


OTHER_MODELS = {
    "use_dora": True,
    "modules_to_save": ["proj_out"],
    "fan_in_fan_out": True,
    "lora_bias": True,
    "trainable_token_indices": [1, 2],
    "alora_invocation_tokens": [50258],
    "layer_replication": [[0, 2], [1, 2]],
    "target_parameters": ["mlp.weight"],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "velora_config": {"num_groups": 4},
    "monteclora_config": {},
    "arrow_config": {"top_k": 2},
    "kasa_config": {},
    "megatron_config": {"tp": 2},
    "ensure_weight_tying": True,
    "added_by_a_later_peft": {"rows": 3},
    "another": 0,
    "a_third": "on",
}


@pytest.mark.parametrize("key", OTHER_MODELS)
def test_what_makes_another_model_is_refused_by_its_name(tmp_path: Path, key: str) -> None:
    message = refusal(make_adapter(tmp_path / "a", **{key: OTHER_MODELS[key]}))
    assert key in message and CONFIG in message and "train" in message


def test_there_is_a_case_for_every_key_that_makes_another_model() -> None:
    assert adapter_config._OTHER_MODEL.keys() <= OTHER_MODELS.keys()


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        *((kind, "path_initial_model_for_weight_conversion") for kind in ("pissa", "pissa_niter_16", "olora", "OLoRA", "corda")),
        ("lora_ga", "path_initial_model_for_weight_conversion"),
        ("loftq", "init_lora_weights=True"),
        *((kind, "init_lora_weights=True") for kind in ("tomorrows", "", 1, 0, 1.5, ["gaussian"], {"name": "gaussian"})),
    ],
)
def test_initializations_that_change_the_base_and_unknown_ones_are_refused(tmp_path: Path, kind: object, remedy: str) -> None:
    message = refusal(make_adapter(tmp_path / "a", init_lora_weights=kind))
    assert f"init_lora_weights is {kind!r}" in message and remedy in message


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "keys",
    [
        *({"r": value} for value in (0, -2, 2.0, "2", True, None, [2], 10**9, 10**400, NAN)),
        *({"lora_alpha": value} for value in (0, -6, "6", True, None, {}, NAN, INF, -INF, 1e300, 10**400)),
        *({"use_rslora": value} for value in ("false", 0, None, [])),
        *({"bias": value} for value in ("all", "lora_only", None, True)),
        *({"peft_type": value} for value in ("lora", "ADALORA", None, 1, ["LORA"])),
        *({"rank_pattern": value} for value in ([2], "q_proj", 2, {"q_proj": 0}, {"q_proj": "2"}, {"fc1": True}, {"fc1": None})),
        *({"alpha_pattern": value} for value in ({"fc1": -1}, {"fc1": NAN}, {"nothing_like_it": INF}, {"fc1": [1]})),
    ],
    ids=lambda keys: str(keys)[:40],
)
def test_numbers_of_wrong_types_and_sizes_are_refused_by_name(tmp_path: Path, keys: dict) -> None:
    assert next(iter(keys)) in refusal(make_adapter(tmp_path / "a", **keys))


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_a_missing_number_is_not_guessed(tmp_path: Path, key: str) -> None:
    folder = make_adapter(tmp_path / "a")
    config = json.loads((folder / CONFIG).read_text())
    del config[key]
    (folder / CONFIG).write_text(json.dumps(config))
    assert f"has no {key}" in refusal(folder)


SIMPLE = {
    "fc1": True, "decoder.layers.1.fc1": True, "^model.decoder.layers.1.fc1": True, "^model.decoder.layers.1.fc1$": True,
    r"layers\.\d\.fc1": True, r"model\.decoder\..*\.fc1": True, r".*decoder.*fc1": True, "(fc1|fc2)": True, "fc[0-9]": True,
    r"\w+": True, "c1": False, "^decoder.layers.1.fc1": False, "layers.2.fc1": False, "fc.": True,
}  # fmt: skip


@pytest.mark.parametrize("pattern", SIMPLE)
def test_names_and_simple_patterns_mean_what_peft_means_by_them(tmp_path: Path, pattern: str) -> None:
    from peft.utils.other import get_pattern_key

    folder = make_adapter(tmp_path / "a", alpha_pattern={pattern: 10})
    found = peft_folder.read_factors(folder)[MODULES[1]].scaling
    assert found == (5.0 if SIMPLE[pattern] else 3.0)
    assert (get_pattern_key([pattern], MODULES[1]) == pattern) is SIMPLE[pattern]


ENDLESS = [
    "(a+)+$", "(a|a)*$", "(.*)*x", r"(\w+\.)+x", "(?:a*)*b", "(a|aa)+$", "a{1,99999}", ".*.*.*x", r"(x+x+)+y", "(a|b)(a|b)(a|b)",
    "(?P<x>a)", r"\1", "[a-z]+", "a|b", "(", "*", "a**", "(?=a)", "", "ü", "a b", "x\ny", "." * 200, "(" * 60 + ")" * 60,
]  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", ENDLESS)
def test_regular_expressions_that_may_never_end_are_refused_and_never_run(tmp_path: Path, key: str, pattern: str) -> None:
    assert key in refusal(make_adapter(tmp_path / "a", **{key: {pattern: 2}}))


@pytest.mark.timeout(60)
def test_the_most_patterns_on_the_longest_names_end(tmp_path: Path) -> None:
    (folder := tmp_path / "a").mkdir()
    names = [f"{'a.' * 60}{number:04d}" for number in range(64)]
    state = {f"{name}.lora_{side}.weight": torch.ones(1, 1) for name in names for side in "AB"}
    patterns = {f".*{'a' * number}.*b": 1 for number in range(adapter_config.MAX_PATTERNS)}
    peft_folder.write_peft(folder, state, {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "alpha_pattern": patterns})
    assert {item.scaling for item in peft_folder.read_factors(folder).values()} == {2.0}
    patterns["(x|y)"] = 1
    peft_folder.write_peft(folder, state, {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "alpha_pattern": patterns})
    assert "17 of them no names" in refusal(folder)
    many = {f"name{number}": 1 for number in range(adapter_config.MAX_NAMES + 1)}
    peft_folder.write_peft(folder, state, {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "alpha_pattern": many})
    assert "1001 entries" in refusal(folder)


@pytest.mark.parametrize(
    "data",
    [b"[]", b"", b"\xff\xfe{}", b'{"r": ' + b"[" * 200_000, b'{"r": ' + b'{"r":' * 200_000, b" " * (5 << 20), b'{"r": 1e999'],
    ids=["list", "empty", "bytes", "lists", "objects", "large", "cut"],
)  # fmt: skip
def test_what_is_no_configuration_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / CONFIG).write_bytes(data)
    assert re.search(r"is not a PEFT adapter: .*adapter_config\.json cannot be read", refusal(folder))


def test_naming_the_base_replaces_the_file_and_leaves_one_that_is_shared(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "/home/me/base", "task_type": None}
    for name in ("pool", "run"):
        (tmp_path / name).mkdir()
    shared = tmp_path / "pool" / adapter_config.CONFIG
    shared.write_text(adapter_config.text(config))
    os.link(shared, tmp_path / "run" / adapter_config.CONFIG)

    adapter_config.name_base(tmp_path / "run", "openai/whisper-base", "abc")

    found = adapter_config.read_config(tmp_path / "run")
    assert found == {**config, "base_model_name_or_path": "openai/whisper-base", "revision": "abc"}
    assert adapter_config.read_config(tmp_path / "pool") == config, "a pool's file is another run's, too"
