"""Models stay in memory as long as there is room, those used last."""

import pytest

from wfc_dist.tryout.shelf import Shelf


def filled(limit: int, *names: str) -> tuple[Shelf[str], list[str]]:
    """Returns a shelf on which a model is as large as its name, after models were asked for, and what was loaded, in order."""
    shelf, loaded = Shelf[str](limit, len), []
    for name in names:
        assert shelf.get(name, lambda name=name: loaded.append(name) or name) == name
    return shelf, loaded


@pytest.mark.parametrize(
    ("limit", "asked", "kept", "loaded"),
    [
        (9, "aaa bbb ccc", "aaa bbb ccc", "aaa bbb ccc"),
        (9, "aaa bbb aaa", "bbb aaa", "aaa bbb"),
        (8, "aaa bbb ccc", "bbb ccc", "aaa bbb ccc"),
        (8, "aaa bbb aaa ccc", "aaa ccc", "aaa bbb ccc"),
        (8, "aaa bbb ccc aaa", "ccc aaa", "aaa bbb ccc aaa"),
        (2, "aaa bbb", "bbb", "aaa bbb"),
        (6, "a bb cccccc", "cccccc", "a bb cccccc"),
    ],
)
def test_those_used_last_stay(limit: int, asked: str, kept: str, loaded: str) -> None:
    shelf, really_loaded = filled(limit, *asked.split())
    assert shelf.names == kept.split() and really_loaded == loaded.split()
    assert shelf.held_bytes == len(kept.replace(" ", ""))


def test_room_is_made_before_a_model_is_loaded() -> None:
    shelf, _ = filled(6, "aaa", "bbb")
    held = []
    shelf.get("ccc", lambda: held.append(shelf.held_bytes) or "ccc")
    assert held == [3]


def test_a_model_that_cannot_be_loaded_leaves_the_others() -> None:
    shelf, _ = filled(9, "aaa")
    with pytest.raises(OSError, match="gone"):
        shelf.get("bbb", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert shelf.names == ["aaa"] and shelf.get("bbb", lambda: "bbb") == "bbb"
