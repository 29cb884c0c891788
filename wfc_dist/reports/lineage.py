"""The chapter of a run's report on its lineage: which adapters, trained on which data, made which base."""

from collections.abc import Sequence
from dataclasses import dataclass

from wfc_dist.reports.pieces import Box, Cell, Drawing, HtmlTable, Part, Section
from wfc_dist.runs.handle import Run, RunBase

_ROUNDS_A_ROW = 3
_ADAPTERS = 10  # drawn for a round; the table has all
_BASE, _ADAPTER, _GAP, _ROW, _TOP = 104, 140, 36, 54, 4  # widths, and the height of a row, in pixels
_MIDDLE = 21  # of a box
_LETTERS = 15


def round_anchor(index: int) -> str:
    """Returns the anchor of a round in the page."""
    return f"scores-of-{index}"


@dataclass(frozen=True)
class _Round:
    """A round: its base before, its adapters (name, sha256), and its base after, None until the base is committed."""

    index: int
    before: RunBase
    adapters: Sequence[tuple[str, str]]
    after: RunBase | None


def lineage_section(run: Run) -> Section:
    """Returns the chapter: a drawing of the rounds, and a table with the same facts in full."""
    rounds = _rounds(run)
    if not rounds:
        return Section(parts=[Part(note="No base is committed yet.")])
    rows = [rounds[start : start + _ROUNDS_A_ROW] for start in range(0, len(rounds), _ROUNDS_A_ROW)]
    parts = [Part(drawing=_drawing(row)) for row in rows]
    intro = (
        "Every base is the base before plus the average of its adapters. Hashes are the first digits of the sha256 of tensors. "
        "A box leads to the scores of its round."
    )
    return Section(intro, [*parts, Part(table=_table(run, rounds))])


def _rounds(run: Run) -> list[_Round]:
    found = []
    for index, names in enumerate(run.config.round_list(), start=1):
        before, after = run.find_base(index - 1), run.find_base(index)
        if before is None:
            break
        committed = [(name, adapter.sha256) for name in names if (adapter := run.adapter(index, name)) is not None]
        adapters = list(after.adapters.items()) if after else committed
        if adapters or after:
            found.append(_Round(index, before, adapters, after))
    return found


def _drawing(rounds: Sequence[_Round]) -> Drawing:
    most = max(min(len(each.adapters), _ADAPTERS + 1) for each in rounds)
    height = _TOP * 2 + _ROW * max(1, most)
    middle = height // 2
    boxes = [_base_box(rounds[0].before, rounds[0].index - 1, 2, middle)]
    arrows: list[str] = []
    x = 2 + _BASE
    for each in rounds:
        shown = _shown(each)
        left, right = x + _GAP, x + _GAP + _ADAPTER
        for number, (name, below, title) in enumerate(shown):
            y = middle + round((number - (len(shown) - 1) / 2) * _ROW)
            boxes.append(Box(name, below, left, y - _MIDDLE, _ADAPTER, title, round_anchor(each.index)))
            arrows += [_arrow(x, middle, left, y), _arrow(right, y, right + _GAP, middle)]
        x = right + _GAP
        boxes.append(_base_box(each.after, each.index, x, middle))
        x += _BASE
    last = rounds[-1].index
    said = "; ".join(
        f"base {each.index - 1} and {len(each.adapters)} adapters ({', '.join(name for name, _ in each.adapters)}) make base "
        f"{each.index}" + ("" if each.after else ", which is not committed yet")
        for each in rounds
    )
    title = f"Lineage from base {rounds[0].index - 1} to base {last}"
    return Drawing(boxes, arrows, x + 2, height, title, f"{said}. The table below has the hashes.")


def _shown(each: _Round) -> list[tuple[str, str, str]]:
    """Returns (name, hash, whole text) of every adapter that is drawn."""
    shown = [
        (_shortened(name), sha256[:8], f"round {each.index}: adapter {name}, {sha256[:12]}") for name, sha256 in each.adapters
    ]
    if len(shown) <= _ADAPTERS + 1:
        return shown
    more = len(shown) - _ADAPTERS
    return [*shown[:_ADAPTERS], (f"{more} more", "see the table", f"round {each.index}: {more} more adapters")]


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _base_box(base: RunBase | None, index: int, x: int, middle: int) -> Box:
    below = base.sha256[:8] if base else "to come"
    css = "base" if base else "base pending"
    link = round_anchor(max(1, index)) if base else ""
    return Box(f"base {index}", below, x, middle - _MIDDLE, _BASE, f"base {index}, {below}", link, css)


def _arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    half = (x + to_x) // 2
    return f"M {x} {y} C {half} {y}, {half} {to_y}, {to_x} {to_y}"


def _table(run: Run, rounds: Sequence[_Round]) -> HtmlTable:
    root = rounds[0].before
    number = {each.before.sha256: f"base {each.before.index}" for each in rounds}
    rows: list[Sequence[Cell] | str] = [
        "base 0, the root",
        [Cell(str(root.facts.get("model", "-"))), Cell(root.sha256, css="wrap"), Cell("-"), Cell("-")],
    ]
    for each in rounds:
        rows.append(f"base {each.index}" + (f", {each.after.sha256}" if each.after else ", to come"))
        facts = each.after.facts if each.after else {}
        weights, grafted = facts.get("weights", {}), facts.get("grafted", {})
        for name, sha256 in each.adapters:
            adapter = run.adapter(each.index, name)
            hours = f"{adapter.facts['hours']:.2f}" if adapter else "-"
            weight = f"{weights[name]:.4f}" if name in weights else "-"
            stale = f"stale: trained against {number.get(grafted[name], 'another base')}" if name in grafted else ""
            rows.append([Cell(name, stale), Cell(sha256, css="wrap"), Cell(hours), Cell(weight)])
        missing = each.after.missing if each.after else {}
        rows += [[Cell(name), Cell(f"missing: {why}", css="wrap"), Cell("-"), Cell("-")] for name, why in missing.items()]
    return HtmlTable(["adapter of", "sha256", "hours", "weight"], rows, left=True)
