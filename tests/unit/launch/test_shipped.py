"""The files that users copy: found in a checkout and in an installed package, written out without harm."""

import os
from pathlib import Path

import pytest

import wfc_dist
from wfc_dist.errors import InputError
from wfc_dist.launch import shipped

REPO = Path(__file__).parents[3]


def test_every_file_of_the_three_folders_is_there() -> None:
    tracked = {f"{name}/{path.name}" for name in shipped.FOLDERS for path in (REPO / name).glob("*") if path.is_file()}
    assert set(shipped.all_files()) == tracked >= {"slurm/round.sh", "configs/example.yaml", "launch/kuberay-rayjob.yaml"}


def test_an_installed_package_takes_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wfc_dist"
    for name in shipped.FOLDERS:
        (package / "shipped" / name).mkdir(parents=True)
        (tmp_path / name).mkdir()  # another package's, beside it in site-packages
    (package / "shipped" / "slurm" / "round.sh").write_text("here")
    (tmp_path / "slurm" / "round.sh").write_text("a stranger's")
    monkeypatch.setattr(wfc_dist, "__file__", str(package / "__init__.py"))
    assert {name: path.read_text() for name, path in shipped.all_files().items()} == {"slurm/round.sh": "here"}


def test_a_folder_a_file_and_both_are_selected_once() -> None:
    assert list(shipped.selected(["slurm/array.sh"])) == ["slurm/array.sh"]
    assert list(shipped.selected(["slurm/"])) == [name for name in shipped.all_files() if name.startswith("slurm/")]
    assert next(iter(shipped.selected(["configs/demo.yaml", "configs"]))) == "configs/demo.yaml"
    assert len(shipped.selected(["configs/demo.yaml", "configs"])) == len(shipped.selected(["configs"]))


@pytest.mark.parametrize(("name", "near"), [("slrum", "slurm"), ("round.sh", "slurm/round.sh"), ("../launch", "launch")])
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        shipped.selected([name])


def test_files_are_written_with_their_bytes_and_scripts_can_be_run(tmp_path: Path) -> None:
    files = shipped.selected(["slurm", "configs/example.yaml"])
    for _ in range(2):  # the same files again are no harm
        written = shipped.copy(files, tmp_path / "new")
        assert {path.relative_to(tmp_path / "new").as_posix(): path.read_bytes() for path in written} == {
            name: (REPO / name).read_bytes() for name in files
        }
    assert os.access(tmp_path / "new" / "slurm" / "round.sh", os.X_OK)
    assert not os.access(tmp_path / "new" / "configs" / "example.yaml", os.X_OK)


@pytest.mark.parametrize("occupied", ["a file of the user's", "a folder"])
def test_nothing_is_written_where_a_users_own_file_lies(occupied: str, tmp_path: Path) -> None:
    mine = tmp_path / "slurm" / "round.sh"
    if occupied == "a folder":
        mine.mkdir(parents=True)
    else:
        mine.parent.mkdir()
        mine.write_text("mine")
    with pytest.raises(InputError, match=r"slurm/round\.sh is there and differs; nothing was written"):
        shipped.copy(shipped.selected(["slurm"]), tmp_path)
    assert [path.name for path in (tmp_path / "slurm").iterdir()] == ["round.sh"]


def test_a_place_that_cannot_be_written_is_an_error_of_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        shipped.copy(shipped.selected(["slurm"]), tmp_path / "file")
