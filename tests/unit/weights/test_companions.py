"""Tokenizer, feature extractor and generation configuration: checked against each other, filled in where that is certain."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
from transformers import WhisperProcessor

from wfc_dist.errors import InputError
from wfc_dist.weights import companions
from wfc_dist.weights.companions import GENERATION


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Everything but the weights."""
    return shutil.copytree(whole, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))


def edit(folder: Path, file: str, **keys: object) -> None:
    tree = json.loads((folder / file).read_text()) | keys
    (folder / file).write_text(json.dumps(tree))


def without(folder: Path, file: str, *keys: str) -> None:
    tree = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({key: value for key, value in tree.items() if key not in keys}))


IDS = ("lang_to_id", "task_to_id", "no_timestamps_token_id", "is_multilingual")


@pytest.mark.parametrize("missing", [*((key,) for key in IDS), IDS, ("eos_token_id", "decoder_start_token_id"), ("*",)], ids=str)
def test_what_early_releases_lack_comes_from_the_tokenizer(folder: Path, missing: tuple[str, ...]) -> None:
    whole = companions.generation_config(folder).to_dict()
    if missing == ("*",):
        (folder / GENERATION).unlink()
    else:
        without(folder, GENERATION, *missing)
    found = companions.generation_config(folder).to_dict()
    assert all(found[key] == whole[key] for key in (*IDS, "eos_token_id", "decoder_start_token_id", "pad_token_id"))
    assert set(companions.check_generation(folder, companions.vocabulary(folder))) == set(missing if missing != ("*",) else IDS)


def test_a_new_folder_gets_the_completed_configuration_and_a_whole_one_its_own_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("same", "completed"):
        (tmp_path / name).mkdir()
    companions.copy_companions(folder, tmp_path / "same")
    assert (tmp_path / "same" / GENERATION).read_bytes() == (folder / GENERATION).read_bytes()
    whole = companions.read_generation(folder)[0]
    without(folder, GENERATION, *IDS)
    early = (folder / GENERATION).read_bytes()
    companions.copy_companions(folder, tmp_path / "completed")
    assert companions.read_generation(tmp_path / "completed") == (whole, [])
    assert (folder / GENERATION).read_bytes() == early


def test_a_folder_that_is_no_whole_model_is_copied_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "root" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "root" / "pytorch_model.bin.index.json").write_text("{}")
    companions.copy_companions(tmp_path / "root", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_suppressed_tokens_of_a_configuration_without_its_own_file_are_kept(folder: Path) -> None:
    (folder / GENERATION).unlink()
    edit(folder, "config.json", suppress_tokens=[1, 2], begin_suppress_tokens=[3])
    found = companions.generation_config(folder)
    assert (found.suppress_tokens, found.begin_suppress_tokens, found.max_length) == ([1, 2], [3], 448)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lang_to_id", value) for value in ([], {}, "es", {"<|es|>": 262}, {"<|es|>": "261"}, {"<|xx|>": 261}, {"es": 261}, 3)),
        *(("task_to_id", value) for value in ([1], {}, {"transcribe": 9}, {"transcribe": None}, {"sing": 360})),
        ("task_to_id", {"translate": 358}),
        *(("pad_token_id", value) for value in ("0", 1.5, [1], 9999)),
        *(("bos_token_id", value) for value in ("<|es|>", {}, 10**30)),
        *(("no_timestamps_token_id", value) for value in (9, "363", True, -1, 10**30, [363])),
        *(("decoder_start_token_id", value) for value in (9, True, "257", [257])),
        *(("eos_token_id", value) for value in (9, "256", [9], [256, 9], {}, [])),
        *(("is_multilingual", value) for value in ("yes", 1, [])),
        *(("suppress_tokens", value) for value in ([9999], ["a"], "abc", [-2], [1.5], {"a": 1})),
        ("begin_suppress_tokens", [[1]]),
    ],
    ids=str,
)
def test_ids_that_are_not_the_tokenizers_are_refused_by_name(folder: Path, key: str, value: object) -> None:
    edit(folder, GENERATION, **{key: value})
    with pytest.raises(InputError, match=rf"generation_config\.json.*{key}"):
        companions.check_generation(folder, companions.vocabulary(folder))


@pytest.mark.parametrize("key", ["max_length", "temperature", "num_beams", "alignment_heads", "transformers_version"])
@pytest.mark.parametrize("value", [[], {}, "x", -1, float("nan"), True, [[]], 10**30])
def test_other_values_of_wrong_types_end_in_a_message_if_at_all(folder: Path, key: str, value: object) -> None:
    edit(folder, GENERATION, **{key: value})
    try:
        companions.check_generation(folder, companions.vocabulary(folder))
    except InputError as error:
        assert GENERATION in error.message


def test_the_tokenizer_of_early_releases_is_read(folder: Path) -> None:
    tokens = companions.vocabulary(folder)
    tree = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(tree["model"]["vocab"]))
    with pytest.raises(InputError, match=r"no tokenizer: neither tokenizer.json nor vocab.json and merges.txt"):
        companions.vocabulary(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps({item["content"]: item["id"] for item in tree["added_tokens"]}))
    assert companions.vocabulary(folder) == tokens


@pytest.mark.parametrize("token", companions.SPECIAL)
def test_a_special_token_that_is_missing_is_named(folder: Path, token: str) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((folder / file).read_text().replace(token, token.replace("<|", "<|un")))
    with pytest.raises(InputError, match=rf"tokenizer has no {re.escape(token)}"):
        companions.vocabulary(folder)


@pytest.mark.parametrize("value", [0, [], [[]], "x", {}, float("inf")], ids=str)
@pytest.mark.parametrize("key", ["model_max_length", "tokenizer_class", "pad_token", "add_prefix_space"])
def test_a_tokenizer_that_cannot_be_used_is_refused(folder: Path, key: str, value: object) -> None:
    edit(folder, "tokenizer_config.json", **{key: value})
    try:
        companions.vocabulary(folder)
        companions.check_processor(folder, 80)
    except InputError as error:
        assert folder.name in error.message
    else:
        WhisperProcessor.from_pretrained(folder).tokenizer([" a"])


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "tree", [[], {}, {"model": 1}, {"added_tokens": {}}, {"model": {"vocab": []}}, {"extra_special_tokens": 1}]
)
def test_another_files_tokenizer_is_refused_or_harmless(folder: Path, file: str, tree: object) -> None:
    (folder / file).write_text(json.dumps(tree))
    whole = file == "tokenizer_config.json"
    try:
        assert companions.vocabulary(folder)["<|es|>"] == 261 and whole
    except InputError as error:
        assert "tokenizer" in error.message and "copy the file" in error.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("feature_size", value) for value in (128, 0, "80", None, [80], -1)),
        *(("sampling_rate", value) for value in (8000, 44100, 0, "16000", None)),
        *(("hop_length", value) for value in (320, 0, "160", 1e9)),
        *(("n_fft", value) for value in (512, -400, [])),
        *(("chunk_length", value) for value in (15, 60, "30", 10**12)),
        ("dither", 1.0),
        *(("padding_side", value) for value in ("left", "middle", None, 1)),
        *(("padding_value", value) for value in (1.0, "0", {})),
        *(("feature_extractor_type", value) for value in (1, "", [])),
    ],
    ids=str,
)
def test_features_of_another_kind_are_refused_by_name(folder: Path, key: str, value: object) -> None:
    edit(folder, "preprocessor_config.json", **{key: value})
    with pytest.raises(InputError, match=rf"preprocessor_config\.json: (.*{key}|the feature extractor cannot be made)"):
        companions.check_processor(folder, 80)


def test_the_mel_bins_are_the_models(folder: Path) -> None:
    companions.check_processor(folder, 80)
    with pytest.raises(InputError, match=r"feature_size is 80, 128 is expected .*num_mel_bins"):
        companions.check_processor(folder, 128)


def test_companions_are_copied_without_the_paths_of_the_machine_that_saved_them(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    config = {"_name_or_path": "/home/me/whisper", "d_model": 32, "activation": "gelu", "rope": None}
    (root / "config.json").write_text(json.dumps(config))
    (root / "tokenizer_config.json").write_text('{"name_or_path":"openai/whisper-base",  "pad_token": "<pad>"}')
    for name in ("manifest.json", "pytorch_model.bin.index.json", "README.md"):
        (root / name).write_text("{}")

    companions.copy_companions(root, out)

    assert sorted(path.name for path in out.iterdir()) == ["config.json", "tokenizer_config.json"]
    assert json.loads((out / "config.json").read_text()) == {"d_model": 32, "activation": "gelu", "rope": None}
    assert (out / "tokenizer_config.json").read_bytes() == (root / "tokenizer_config.json").read_bytes(), "nothing to remove"
