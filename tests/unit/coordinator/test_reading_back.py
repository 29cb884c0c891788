"""A merge that is wrong on the disk is repeated once; what is wrong twice is never committed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
from processes import start_wfc, wait_for

from wfc_dist import load_config, open_run, run
from wfc_dist.backends.in_process import InProcessBackend
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import IntegrityError
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.weights import base_chain


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A configuration, and the base that an undisturbed run makes."""
    path = tiny.make_config(
        tmp_path_factory.mktemp("run"), rounds=[["a", "b"]], train={"max_steps": 2}, evaluate={"max_clips": 1}
    )  # fmt: skip
    return path, run(load_config(path), Display(plain=True)).sha256


@pytest.mark.process
@pytest.mark.parametrize("name", [base_chain.CHANGED, base_chain.DELTA])
def test_a_bit_that_flips_between_write_and_commit(finished: tuple[Path, str], tmp_path: Path, name: str) -> None:
    path, expected = finished
    held = tmp_path / "held"
    process = start_wfc(
        "run", path, f"run.dir={tmp_path / 'runs'}", "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"read_back={held}"
    )
    assert wait_for(held, process), (tmp_path / "log").read_text()
    (staged,) = (tmp_path / "runs").rglob(name)
    assert ".tmp-" in staged.parent.name
    flip(staged)
    held.unlink()

    assert process.wait(300) == 0, (tmp_path / "log").read_text()
    opened = open_run(tmp_path / "runs" / "tiny")
    assert opened.base().sha256 == expected
    (failure,) = [line for line in opened.ledger() if line["event"] == "failure"]
    assert (failure["work"], failure["decision"]) == ("read_back", "restart") and name in failure["reason"]
    assert verify_run(opened.path, deep=True).damaged == {}
    assert "the merge is repeated" in (tmp_path / "log").read_text()


@pytest.mark.process
def test_what_is_wrong_twice_is_not_committed(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = finished
    config, centralize = load_config(path, [f"run.dir={tmp_path}"]), InProcessBackend.centralize

    def damaged(self: InProcessBackend, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        staged = centralize(self, base, adapters)
        flip(Path(staged.path) / base_chain.CHANGED)
        return staged

    with monkeypatch.context() as patch:
        patch.setattr(InProcessBackend, "centralize", damaged)
        with pytest.raises(IntegrityError, match="for the second time; nothing was committed"):
            run(config, Display(plain=True))
    opened = open_run(config.run_dir())
    assert opened.num_bases == 1 and len(opened.adapters(1)) == 2
    assert not list(config.run_dir().rglob(base_chain.CHANGED)) and opened.deltas() == []
    assert [line["decision"] for line in opened.ledger() if line["event"] == "failure"] == ["restart", "give up"]

    assert run(config, Display(plain=True)).sha256 == expected
    assert [line["dataset"] for line in opened.ledger() if line["event"] == "adapter"] == ["a", "b"], "none is trained again"
