"""What leaves a run: cards in every committed folder, no path of this machine, models in other formats that say the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import accelerate
import numpy as np
import pytest
import soundfile as sf
import tiny
from hub_server import Hub, hub_on_loopback
from huggingface_hub import ModelCard
from processes import wfc
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wfc_dist import ConfigError, InputError, IntegrityError, export, load_model
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.runs.layout import RunPaths, read_record
from wfc_dist.storage import durable
from wfc_dist.weights.base_chain import hash_tensors, read_tensors, weight_map
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.tensor_files import read_header


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a finished run of two rounds; bases 0 to 2, adapters a, b and c; its files were made with umask 027."""
    root = tmp_path_factory.mktemp("export")
    before = os.umask(0o027)
    try:
        config = tiny.make_config(root, rounds=[["a", "b"], ["c"]])
        wfc("run", config, "--plain")
    finally:
        os.umask(before)
    return open_run(root / "runs" / "tiny")


def committed(run: Run) -> list[Path]:
    return [path.parent for path in sorted(run.path.rglob(durable.MANIFEST))]


def test_every_base_and_adapter_has_a_card(run: Run) -> None:
    folders = [folder for folder in committed(run) if folder.name != "delta"]
    assert [folder.name for folder in folders] == ["base-0000", "base-0001", "base-0002", "a", "b", "c"]
    for folder in folders:
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == ("peft" if len(folder.name) == 1 else "transformers")
        assert run.base(0).sha256 in card.text and durable.verify_folder(folder)["files"]["README.md"]
    assert all(run.base(index).sha256 in (run.path / "base-0002" / "README.md").read_text() for index in (1, 2))


def test_what_is_committed_names_no_path_of_this_machine(run: Run) -> None:
    for folder in committed(run):
        for path in durable.files_in(folder):
            assert str(run.path.parent.parent).encode() not in path.read_bytes()[: 1 << 20], path
        if folder.name != "base-0000":  # which is a pointer to a folder of this machine
            assert str(run.path.parent.parent) not in (folder / durable.MANIFEST).read_text()


def test_modes_of_all_files_follow_the_umask(run: Run) -> None:
    own = [path for path in run.path.rglob("*") if path.is_file() and path.stat().st_nlink == 1]  # others are the root's
    assert len(own) > 20 and [path for path in own if path.stat().st_mode & 0o777 != 0o640] == []


def test_an_adapter_finds_its_base_wherever_the_run_lies(run: Run, tmp_path: Path) -> None:
    config = json.loads((run.paths.adapter(2, "c") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../../../base-0001" and config["task_type"] is None
    shutil.copytree(run.path, tmp_path / "moved", symlinks=True)
    assert load_model(tmp_path / "moved" / "round-0002" / "adapters" / "c").folder == tmp_path / "moved" / "base-0001"

    shutil.copytree(run.paths.adapter(2, "c"), tmp_path / "alone")
    with pytest.raises(InputError, match="a place in a run directory"):
        load_model(tmp_path / "alone")
    shutil.copytree(run.paths.adapter(2, "c"), tmp_path / "moved" / "round-0001" / "adapters" / "c")
    with pytest.raises(InputError, match=r"was trained against base \w{12}, and base 0 of .* is \w{12}"):
        load_model(tmp_path / "moved" / "round-0001" / "adapters" / "c")


def test_a_base_is_exported_in_one_file_and_in_shards_with_every_tensor_once(run: Run, tmp_path: Path) -> None:
    one = export(run.path, "safetensors", tmp_path / "one", base=1)
    many = export(run.path, "safetensors", tmp_path / "many", base=1, shard_size_bytes=200_000)

    for done in (one, many):
        assert len(done.compared) == 4 and all(item.is_same for item in done.compared)
        assert content_sha256(hash_tensors(done.folder)) == run.base(1).sha256 == done.base.sha256
    files = sorted(many.folder.glob("*.safetensors"))
    assert [path.name for path in files] == [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, 5)]
    assert len([name for path in files for name in read_header(path)]) == len(weight_map(run.base(1).path)), "none is there twice"
    assert [path.name for path in one.folder.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8"])
def test_faster_whisper_writes_what_the_base_writes(run: Run, tmp_path: Path, quantization: str) -> None:
    pytest.importorskip("faster_whisper")
    done = export(run.path, "ctranslate2", tmp_path / "out", quantization=quantization)
    assert len(done.compared) == 4 and all(item.is_same for item in done.compared)
    card = ModelCard.load(done.folder / "README.md")
    assert "faster_whisper" in card.text and "same text for 4 of them" in card.text and f", {quantization}" in card.text
    assert card.data.library_name == "ctranslate2" and len(card.data.eval_results or []) == len(run.config.test_sets())


CONVERTER = """import json, pathlib, sys, numpy
checkpoint, openai, out = map(pathlib.Path, sys.argv[1:4])
words, added = (json.loads((checkpoint / name).read_text()) for name in ("vocab.json", "added_tokens.json"))
assert not words.keys() & added.keys() and "<|endoftext|>" in added and len(words) > 100
config = json.loads((checkpoint / "config.json").read_text())
mels = numpy.load(openai / "whisper" / "assets" / "mel_filters.npz")[f"mel_{config['num_mel_bins']}"]
assert mels.shape == (config["num_mel_bins"], 201) and mels.dtype == "float32"
if "FAIL" in __file__: sys.exit("no such layer")
(out / "ggml-model.bin").write_text("made")
"""


def test_a_converter_of_whisper_cpp_gets_the_files_it_reads(run: Run, tmp_path: Path) -> None:
    """The script stands in for whisper.cpp's: it looks for the same files."""
    (tmp_path / "convert.py").write_text(CONVERTER)
    export(run.path, "ggml", tmp_path / "made", converter=tmp_path / "convert.py", verify=False)
    assert (tmp_path / "made" / "ggml-model.bin").read_text() == "made"
    assert "Not verified" in (tmp_path / "made" / "README.md").read_text()
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["README.md", "ggml-model.bin"]

    (tmp_path / "FAIL.py").write_text(CONVERTER)
    with pytest.raises(InputError, match=r"failed with exit code 1:\nno such layer"):
        export(run.path, "ggml", tmp_path / "out", converter=tmp_path / "FAIL.py", verify=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FAIL.py", "convert.py", "made"], "nothing is left"


OPTIMUM = """import json, pathlib, sys
from safetensors import safe_open
assert sys.argv[1:3] == ["export", "onnx"] and sys.flags.isolated
options, out = dict(zip(sys.argv[3:7:2], sys.argv[4:7:2])), pathlib.Path(sys.argv[7])
assert options["--task"] == "automatic-speech-recognition-with-past"
source = pathlib.Path(options["--model"])
with safe_open(source / "model.safetensors", "numpy") as file:
    assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"} and len(file.keys()) > 20
assert "additional_special_tokens" in json.loads((source / "tokenizer_config.json").read_text())
if "FAIL" in __file__: sys.exit("no such operator")
for name in ("encoder_model.onnx", "decoder_model_merged.onnx", "preprocessor_config.json"): (out / name).write_text("made")
if "MUTE" not in __file__: (out / "tokenizer.json").write_text("made")
"""


def make_environment(folder: Path, **distributions: str) -> Path:
    """Makes an environment with a stand-in of optimum and the records of distributions; returns its optimum-cli."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "parent.pth").write_text(str(Path(np.__file__).parents[1]))  # where safetensors is
    for name, version in distributions.items():
        (site / f"{name}-{version}.dist-info").mkdir()
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")
    (site / "optimum" / "commands").mkdir(parents=True)
    (site / "optimum" / "commands" / "optimum_cli.py").write_text(OPTIMUM)
    (folder / "bin" / "optimum-cli").write_text("")
    return folder / "bin" / "optimum-cli"


def test_optimum_gets_a_whole_float32_checkpoint_in_an_environment_of_its_own(run: Run, tmp_path: Path) -> None:
    """The module stands in for optimum's command: it looks at the files it would read. The test below has the real one."""
    versions = {"optimum_onnx": "0.1.7", "onnxruntime": "1.2.3"}
    good, bad, mute = (make_environment(tmp_path / name, **versions) for name in ("good", "FAIL", "MUTE"))
    done = wfc("export", run.path, "--to", "onnx", "--converter", good, "--out", tmp_path / "made", "--no-verify")
    assert "by optimum-onnx 0.1.7, onnxruntime 1.2.3: not verified" in done.stderr
    export(run.path, "onnx", tmp_path / "same", converter=good.with_name("python"), verify=False)
    for folder in (tmp_path / "made", tmp_path / "same"):
        assert {"README.md", "encoder_model.onnx", "tokenizer.json"} < {path.name for path in folder.iterdir()}
    card = ModelCard.load(tmp_path / "made" / "README.md")
    assert card.data.library_name == "onnx" and "ORTModelForSpeechSeq2Seq" in card.text

    with pytest.raises(InputError, match=r"failed with exit code 1:\nno such operator"):
        export(run.path, "onnx", tmp_path / "out", converter=bad, verify=False)
    with pytest.raises(InputError, match=r"wrote no tokenizer\.json:"):
        export(run.path, "onnx", tmp_path / "out", converter=mute, verify=False)
    bare = make_environment(tmp_path / "bare", optimum_onnx="0.1.7")
    (bare.parents[1] / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "parent.pth").unlink()
    with pytest.raises(
        ConfigError,
        match=r"run `pip install 'optimum-onnx\[onnxruntime\]' accelerate` in that environment \(.*for onnxruntime\)$",
    ):
        export(run.path, "onnx", tmp_path / "out", converter=bare, verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {"good", "FAIL", "MUTE", "bare", "made", "same"}, "nothing is left"


@pytest.mark.skipif(
    "WFC_OPTIMUM" not in os.environ, reason="set WFC_OPTIMUM to the optimum-cli of an environment, see docs/export.md"
)
def test_onnxruntime_writes_what_the_base_writes(run: Run, tmp_path: Path) -> None:
    done = export(run.path, "onnx", tmp_path / "out", converter=os.environ["WFC_OPTIMUM"])
    assert len(done.compared) == 4 and all(item.is_same for item in done.compared)
    assert "onnxruntime " in done.made_by and "same text for 4 of them" in (done.folder / "README.md").read_text()


def test_an_export_that_is_refused_leaves_the_folder_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(InputError, match="not written over"):
        export(run.path, "safetensors", tmp_path / "full", verify=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert export(run.path, "safetensors", tmp_path / "empty", verify=False).folder == tmp_path / "empty"
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_a_base_whose_tensors_changed_is_not_exported(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy", symlinks=True)
    update = tmp_path / "copy" / "base-0001" / "model-update.safetensors"
    data = bytearray(update.read_bytes())
    data[-1] ^= 1
    update.write_bytes(data)
    with pytest.raises(IntegrityError, match="is not the base 1 that was committed"):
        export(tmp_path / "copy", "safetensors", tmp_path / "out", base=1)
    assert not (tmp_path / "out").exists()


def test_clips_that_are_named_are_used_and_bad_ones_are_refused(run: Run, tmp_path: Path) -> None:
    clip = next((run.path.parents[1] / "a" / "audio").glob("test-*.flac"))
    done = export(run.path, "safetensors", tmp_path / "out", clips=[clip], language="en")
    assert [item.clip for item in done.compared] == [clip.name]
    sf.write(tmp_path / "long.wav", np.zeros(31 * 16_000), 16_000)
    with pytest.raises(InputError, match=r"long\.wav is 31\.0 s long"):
        export(run.path, "safetensors", tmp_path / "other", clips=[tmp_path / "long.wav"])


def test_a_run_whose_data_is_gone_says_how_to_verify(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy", symlinks=True)
    record = read_record(RunPaths(tmp_path / "copy"))
    for data in record["config"]["datasets"].values():
        data["source"] = str(tmp_path / "gone")
    durable.write_sealed(tmp_path / "copy" / "config.json", record)
    with pytest.raises(InputError, match=r"test sets cannot be read here .*--clip, or add --no-verify"):
        export(tmp_path / "copy", "safetensors", tmp_path / "out")


def test_the_command_says_what_it_did(run: Run, tmp_path: Path) -> None:
    done = wfc("export", run.path, "--base", 1, "--to", "safetensors", "--out", tmp_path / "out", "--shard-size", "200KB")
    assert done.stdout.strip() == str(tmp_path / "out") and "the same text for 4 of 4 clips" in done.stderr
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 4


def pushed(
    run: Run, hub: Hub, *arguments: object, check: bool = True, token: str = "hf_secret"
) -> subprocess.CompletedProcess[str]:
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return wfc("push", run.path, "org/name", *arguments, check=check, **environment)


def test_a_base_is_pushed_in_one_commit_and_loads_from_what_the_hub_holds(run: Run, tmp_path: Path) -> None:
    with hub_on_loopback("hf_secret") as hub:
        hub.files = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "notes.txt": b"mine"}
        done = pushed(run, hub, "--base", 1, "--private")
    assert hub.is_private is True and sum("/commit/" in request for request in hub.requests) == 1
    assert {"model.safetensors", "README.md", "config.json", "tokenizer.json", "notes.txt"} <= hub.files.keys()
    assert not {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} & hub.files.keys(), "stale weights"
    assert done.stdout.strip().endswith("/org/name/commit/1") and "hf_secret" not in done.stdout + done.stderr
    for name, data in hub.files.items():
        (tmp_path / name).write_bytes(data)
    assert content_sha256(hash_tensors(tmp_path)) == run.base(1).sha256
    assert "## Error by test set" in ModelCard.load(tmp_path / "README.md").text


def test_a_dry_run_lists_files_and_sizes_and_sends_nothing(run: Run) -> None:
    with hub_on_loopback("hf_secret") as hub:
        done = pushed(run, hub, "--dry-run")
    assert hub.requests == [] and "nothing was sent" in done.stderr
    size = next(line.split()[0] for line in done.stderr.splitlines() if line.endswith("  model.safetensors"))
    assert int(size.replace(",", "")) > 500_000


def test_a_refused_push_names_the_way_out_and_no_token(run: Run) -> None:
    with hub_on_loopback("hf_secret") as hub:
        done = pushed(run, hub, check=False, token="hf_wrong")
        assert done.returncode == 2 and "hub refused org/name (HTTP 401)" in done.stderr and "hf auth login" in done.stderr
        assert "hf_wrong" not in done.stdout + done.stderr and "Traceback" not in done.stderr and hub.files == {}
        done = wfc("push", run.path, "a/b/c", check=False, HF_ENDPOINT=hub.url)
        assert done.returncode == 2 and "no name of a repository such as OWNER/NAME" in done.stderr
    done = pushed(run, hub, check=False)  # the server is gone
    assert done.returncode == 1 and "org/name was not sent (ConnectError" in done.stderr and "Traceback" not in done.stderr


def test_two_bases_differ_in_the_tensors_that_a_round_changed(run: Run) -> None:
    changed = run.base(1).facts["changed"]
    found = json.loads(wfc("diff", run.path / "base-0000", run.path / "base-0001", "--json").stdout)
    assert sorted(item["name"] for item in found["moved"]) == changed and found["num_tensors"] > len(changed)
    assert all(item["relative"] > 0 and item["largest"] > 0 and not item["why"] for item in found["moved"])
    assert found["scores"].keys() == run.config.test_sets().keys() and all(None not in pair for pair in found["scores"].values())
    norm = run.base(1).facts["update_norm"]
    total = sum(float(tensor.double().square().sum()) for _, tensor in read_tensors(run.base(0).path))
    assert found["relative"] == pytest.approx(norm / total**0.5, rel=1e-3), "the update, but for what the cast lost"

    text = wfc("diff", run.path / "base-0000", run.path, "--show", 1).stdout
    assert "tensors differ" in text and "more" in text and "error in percent" in text
    assert json.loads(wfc("diff", run.path, run.path / "base-0002", "--json").stdout)["moved"] == []


@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_an_export_has_no_stale_tensor_for_a_loader_that_reads_files_in_any_order(run: Run, tmp_path: Path, seed: str) -> None:
    """huggingface_hub reads the files of an index in the order of a set, which the hash seed decides."""
    done = export(run.path, "safetensors", tmp_path / "out", shard_size_bytes=200_000, verify=False)
    code = """if True:
        import sys, huggingface_hub, transformers
        from wfc_dist.weights.base_chain import read_tensors
        folder, base = sys.argv[1:]
        model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig.from_pretrained(folder))
        huggingface_hub.load_torch_model(model, folder, strict=False)
        state = model.state_dict()
        print(sum(not state[name].equal(tensor) for name, tensor in read_tensors(__import__("pathlib").Path(base))))
    """
    command = [sys.executable, "-c", code, str(done.folder), str(run.base().path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert found.stdout.split() == ["0"]


def test_the_loaders_that_the_documentation_calls_right_read_what_a_round_changed(run: Run) -> None:
    base = run.base(2).path
    changed = dict(read_tensors(base, run.base(2).facts["changed"]))
    with accelerate.init_empty_weights():
        empty = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(base))
    empty.tie_weights()
    models = {
        "transformers": WhisperForConditionalGeneration.from_pretrained(base),
        "device_map": WhisperForConditionalGeneration.from_pretrained(base, device_map="cpu"),
        "accelerate": accelerate.load_checkpoint_and_dispatch(empty, str(base), device_map={"": "cpu"}),
    }
    assert len(changed) > 8
    for name, model in models.items():
        state = model.state_dict()
        assert [key for key, tensor in changed.items() if not state[key].equal(tensor)] == [], name
