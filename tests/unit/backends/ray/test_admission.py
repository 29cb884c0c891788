"""Which nodes may be used, and the words for those that may not."""

from dataclasses import replace
from pathlib import Path

import pytest

from wfc_dist.backends.ray.admission import NodeFacts, import_error, place_marker, refusal, versions

HERE = {"python": "3.11.7", "torch": "2.13.0"}
GOOD = NodeFacts("node1", "10.0.0.1", "eth0", HERE, "token", True)


def test_a_node_that_sees_everything_is_used() -> None:
    assert refusal(GOOD, "token", HERE, Path("runs/x"), "/models/m") is None
    assert refusal(replace(GOOD, marker=None), None, HERE, Path("runs/x"), "") is None, "on object storage there is no marker"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, marker=None), "does not see the run directory /"),
        (replace(GOOD, marker="another"), "does not see the run directory /"),
        (replace(GOOD, root=False), "does not see the root model /models/m"),
        (replace(GOOD, versions={**HERE, "torch": "2.12.1"}), "runs other versions: torch 2.12.1 (here 2.13.0)"),
    ],
)
def test_a_node_that_does_not_is_refused_with_the_reason(facts: NodeFacts, said: str) -> None:
    why = refusal(facts, "token", HERE, Path("runs/x"), "/models/m")
    assert why is not None and said in why


def test_every_marker_is_another(tmp_path: Path) -> None:
    first = place_marker(tmp_path / ".shared")
    second = place_marker(tmp_path / ".shared")
    assert first != second and (tmp_path / ".shared").read_text() == second


def test_versions_name_what_makes_the_bytes() -> None:
    assert {"python", "torch", "transformers", "peft"} <= versions().keys()
    assert "+" not in versions()["torch"]


def test_a_module_that_cannot_be_imported_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_driver.py").write_text("def load():\n    raise OSError('libcudart.so.12: cannot open')\nload()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_error(("json", "broken_driver")) == "broken_driver: OSError: libcudart.so.12: cannot open"
    assert import_error(("json",)) == ""
