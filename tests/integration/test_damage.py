"""One file of a run is damaged between two attempts: the run ends with the same bytes, or says what to do; never a traceback."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from wfc_dist import export, load_config, load_model, open_run, run
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import IntegrityError, WfcError
from wfc_dist.progress import Display
from wfc_dist.storage import durable

ROUNDS = [["a", "b"], ["c"], ["d"]]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(path.name).randrange(len(data))] ^= 1
    rewrite(path, bytes(data))


def truncate(path: Path) -> None:
    rewrite(path, path.read_bytes()[: path.stat().st_size // 2])


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()  # the file may be a link to one of the root's
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {"flip": flip, "truncate": truncate, "remove": os.unlink}


@pytest.fixture(scope="module")
def after_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of three rounds as it is after two of them: (configuration, sha256 of the last base)."""
    root = tmp_path_factory.mktemp("damage")
    path = tiny.make_config(
        root, rounds=ROUNDS, train={"max_steps": 2}, evaluate={"max_clips": 1}, cluster={"backend": "in_process"}
    )  # fmt: skip
    base = run(load_config(path), Display(plain=True))
    run_dir = load_config(path).run_dir()
    durable.remove_folder(run_dir / "base-0003")
    shutil.rmtree(run_dir / "round-0003")
    ledger = run_dir / "ledger.jsonl"
    lines = [line for line in ledger.read_text().splitlines(keepends=True) if '"round": 3' not in line]
    ledger.write_text("".join(lines))
    os.rename(run_dir, root / "kept")
    return path, base.sha256


@pytest.fixture
def run_dir(after_two: tuple[Path, str]) -> Path:
    """The run after two rounds, for one test."""
    folder = load_config(after_two[0]).run_dir()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(after_two[0].parent / "kept", folder, symlinks=True)
    return folder


FILES = [
    "config.json", "config-copy.json", "status.json", "ledger.jsonl",
    "base-0000/manifest.json",
    "base-0001/manifest.json", "base-0001/model-update.safetensors", "base-0001/config.json", "base-0001/README.md",
    "base-0002/manifest.json", "base-0002/model-update.safetensors", "base-0002/model.safetensors.index.json",
    "base-0002/model-root-00001.safetensors", "base-0002/tokenizer.json",
    "round-0001/delta/manifest.json", "round-0001/delta/delta.safetensors", "round-0002/delta/delta.safetensors",
    "round-0001/adapters/a/manifest.json", "round-0001/adapters/a/adapter_model.safetensors",
    "round-0002/adapters/c/manifest.json", "round-0002/adapters/c/adapter_model.safetensors",
    "round-0002/adapters/c/adapter_config.json",
    "round-0001/evaluation/base-0000/scores.json", "round-0001/evaluation/base-0000/a.jsonl",
    "round-0002/evaluation/base-0002/scores.json", "round-0002/evaluation/base-0002/c.jsonl",
    "round-0001/training-curves/a.jsonl",
]  # fmt: skip


ALL = [(name, damage) for name in FILES for damage in DAMAGE]
CASES = ALL if os.environ.get("WFC_TEST_ALL_DAMAGE") else ALL[::4]  # another kind of damage for each file in turn


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), CASES)
def test_the_same_bytes_in_the_end(after_two: tuple[Path, str], run_dir: Path, name: str, damage: str) -> None:
    path, expected = after_two
    DAMAGE[damage](run_dir / name)

    assert run(load_config(path), Display(plain=True)).sha256 == expected

    opened = open_run(run_dir)
    assert [base.sha256 for base in opened.bases][-1] == expected and len(opened.bases) == 4
    assert {scores.model for scores in opened.scores()} >= {"base-0000", "base-0001", "base-0002", "base-0003", "d"}
    assert [line["sha256"] for line in opened.ledger() if line["event"] == "base"][-1] == expected


@pytest.mark.slow
def test_verify_finds_each_damage_and_repairs_it(after_two: tuple[Path, str], run_dir: Path) -> None:
    assert verify_run(run_dir, deep=True).damaged == {}
    kinds = list(DAMAGE.values())
    for number, name in enumerate(FILES):
        if "README" not in name and "curves" not in name and not name.startswith("round-0001/adapters"):
            kinds[number % 2](run_dir / name)  # a removed file is no part that could be read
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != "lock"}
    damaged = verify_run(run_dir).damaged
    assert {path: path.read_bytes() for path in before} == before, "looking changes nothing"
    whole = {"config.json", "config-copy.json", "status.json", "ledger.jsonl", "base-0000", "base-0001", "base-0002"}
    assert whole | {"round-0001/delta", "round-0002/delta", "round-0002/adapters/c"} <= damaged.keys()
    assert sum("/evaluation/" in name for name in damaged) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base-0001/model-update.safetensors", "round-0001/delta/delta.safetensors", "config.json",
                                  "status.json", "ledger.jsonl", "round-0002/evaluation/base-0002/c.jsonl"])  # fmt: skip
def test_verify_repairs(after_two: tuple[Path, str], run_dir: Path, name: str) -> None:
    intact = (run_dir / name).read_bytes()
    flip(run_dir / name)
    (damaged,) = verify_run(run_dir).damaged
    assert name.startswith(damaged)
    found = verify_run(run_dir, repair=True, deep=True)
    assert damaged in found.repaired and not found.damaged
    if name.endswith("safetensors"):
        assert (run_dir / name).read_bytes() == intact, "the same bytes"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "retrain"), [
    ("adapter_config.json", "flip", False), ("adapter_config.json", "remove", False), ("README.md", "truncate", False),
    ("manifest.json", "flip", False), ("manifest.json", "remove", False), ("adapter_model.safetensors", "flip", True),
    ("adapter_model.safetensors", "remove", True),
])  # fmt: skip
def test_verify_makes_a_merged_adapter_anew(
    after_two: tuple[Path, str], run_dir: Path, name: str, damage: str, *, retrain: bool
) -> None:
    folder = run_dir / "round-0001/adapters/b"
    intact, manifest = {path.name: path.read_bytes() for path in folder.iterdir()}, durable.read_manifest(folder)
    DAMAGE[damage](folder / name)
    assert list(verify_run(run_dir).damaged) == ["round-0001/adapters/b"]

    first = verify_run(run_dir, repair=True)
    if retrain:
        assert "round-0001/adapters/b" in first.damaged, "hours of training are not begun unasked"
        first = verify_run(run_dir, repair=True, retrain=True)

    assert first.repaired == ["round-0001/adapters/b"] and not first.damaged
    assert durable.read_manifest(folder) == manifest
    again = {path.name: path.read_bytes() for path in folder.iterdir()}
    del again["manifest.json"], intact["manifest.json"]
    assert again == intact, "the same bytes, in every file"
    assert not list(run_dir.glob("round-0001/*/*.tmp-*")) and not (run_dir / "round-0001/training").exists()
    assert run(load_config(after_two[0]), Display(plain=True)).sha256 == after_two[1]


@pytest.mark.slow
def test_a_repair_removes_what_a_killed_one_has_left(after_two: tuple[Path, str], run_dir: Path) -> None:
    flip(run_dir / "round-0001" / "delta" / "delta.safetensors")
    for name in ("base-0001.tmp-2", "round-0001/delta.tmp-2"):
        (run_dir / name).mkdir()
    assert not verify_run(run_dir, repair=True, display=Display(plain=True)).damaged
    assert not [path for path in run_dir.rglob("*") if ".tmp-" in path.name]


def test_a_pipe_in_a_merged_adapter_is_replaced(after_two: tuple[Path, str], run_dir: Path) -> None:
    path = run_dir / "round-0001" / "adapters" / "a" / "adapter_config.json"
    path.unlink()
    os.mkfifo(path)
    assert not verify_run(run_dir, repair=True, display=Display(plain=True)).damaged


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("base-0002/model-update.safetensors", "."), ("base-0002/tokenizer.json", "."), ("base-0001/config.json", "base-0001"),
        ("round-0001/adapters/a/adapter_model.safetensors", "round-0001/adapters/a"),
        ("base-0001/generation_config.json", "round-0002/adapters/c"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_not_loaded(run_dir: Path, name: str, model: str) -> None:
    (run_dir / "base-0002" / "README.md").write_text("my own words")
    load_model(run_dir / model)
    flip(run_dir / name)
    with pytest.raises(IntegrityError, match=r"sha256 of its manifest: .*; `wfc verify .*/runs/tiny --repair` makes it anew"):
        load_model(run_dir / model)


def test_a_damaged_tokenizer_is_not_handed_on(run_dir: Path, tmp_path: Path) -> None:
    flip(run_dir / "base-0002" / "tokenizer.json")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json does not have the sha256"):
        export(run_dir, "safetensors", tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()


def test_weights_that_a_training_does_not_give_again_are_not_put_in_their_place(
    after_two: tuple[Path, str], run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, audio = run_dir / "round-0002/adapters/c", after_two[0].parent / "c" / "audio"
    flip(folder / "adapter_model.safetensors")
    before, heard = {path: path.read_bytes() for path in folder.iterdir()}, (audio / "train-0.flac").read_bytes()
    (audio / "train-0.flac").write_bytes((audio / "train-3.flac").read_bytes())  # as long, and something else

    try:
        found = verify_run(run_dir, repair=True, retrain=True)
    finally:
        (audio / "train-0.flac").write_bytes(heard)

    assert "round-0002/adapters/c" in found.damaged
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    sha256 = open_run(run_dir).base(2).adapters["c"][:12]
    assert f"and base 2 holds {sha256}; use the libraries" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_both_copies_of_the_configuration(after_two: tuple[Path, str], run_dir: Path, damage: str) -> None:
    for name in ("config.json", "config-copy.json"):
        DAMAGE[damage](run_dir / name)
    with pytest.raises(IntegrityError, match=r"config\.json is .*; config-copy\.json beside it is damaged, too"):
        run(load_config(after_two[0]), Display(plain=True))


@pytest.mark.slow
def test_a_delta_and_its_adapter(after_two: tuple[Path, str], run_dir: Path) -> None:
    flip(run_dir / "round-0001/delta/delta.safetensors")
    flip(run_dir / "round-0001/adapters/b/adapter_model.safetensors")
    with pytest.raises(WfcError, match=r"delta\.safetensors .* It cannot be made anew: .*adapters/b.*from a backup"):
        run(load_config(after_two[0]), Display(plain=True))
