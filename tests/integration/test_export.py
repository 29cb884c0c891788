"""What leaves a run: cards in every committed folder, no path of this machine, models in other formats that say the same."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
from huggingface_hub import ModelCard
from processes import wfc

from wfc_dist import InputError, load_model
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.storage import durable


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
            head = path.read_bytes()[: 1 << 20]
            assert str(run.path.parent.parent).encode() not in head, path
            assert not path.name.endswith(".json") or not re.search(rb'"/[A-Za-z]', head) or path.name.startswith("tokenizer"), (
                path
            )
        if folder.name != "base-0000":  # which is a pointer to a folder of this machine
            assert str(run.path.parent.parent) not in (folder / durable.MANIFEST).read_text()


def test_modes_of_all_files_follow_the_umask(run: Run) -> None:
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in run.path.rglob("*") if path.is_file() and path.stat().st_nlink == 1
    }
    assert {name: mode for name, mode in modes.items() if mode != 0o640} == {}


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
