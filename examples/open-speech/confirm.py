"""The confirmatory study: chooses its rates on dev error, keeps its counts, and writes its table and its verdicts from them.

    confirm.py --choose runs/confirm-tuning     each system's rate of least dev error, into configs/compare-confirm.yaml
    confirm.py --take runs/confirm              takes the counts over into confirm/, which stands beside this file
    confirm.py                                  docs/study/confirmatory.md, from the counts that are there: every figure again

docs/results/study-plan.md says what is asked and how it is decided. `make confirm` runs everything, and goes on where it was.
"""

import argparse
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from study import END, lines_of

from wfc_dist.compare.counts import COUNTS, Counted, read_counts
from wfc_dist.compare.results import SystemRow, Value, system_rows
from wfc_dist.errors import InputError
from wfc_dist.evaluation.intervals import holm

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
KEPT, CONFIG, PAGE = HERE / "confirm", REPO / "configs" / "compare-confirm.yaml", REPO / "docs" / "study" / "confirmatory.md"
TUNING = "tuning.json.gz"
BEGIN = "<!-- made by examples/open-speech/confirm.py -->"
REFERENCE, PRIMARY = "mean-3", ("new", "protected")
CANDIDATES = ("half", "same", "twice")
KNOBS = {"mean-3": "centralize.scale"}  # of the others train.lr
AIM, MARGIN, EQUAL = -0.246, 0.10, 0.02
"""The paper's relative change on the new sets, the relative loss on the protected sets that still counts as kept, and the points
within which two systems count as equal."""


def rows_with_family(counted: Counted) -> dict[str, SystemRow]:
    """Returns system -> row; p_holm is corrected over the family of the plan: every system, the figures of PRIMARY."""
    rows = {row.system: row for row in system_rows(counted)}
    chances = {
        f"{name} {figure}": row.values[figure].p for name, row in rows.items() for figure in PRIMARY if figure in row.values
    }
    corrected = holm(chances)
    return {
        name: replace(row, values={
            figure: replace(value, p_holm=corrected.get(f"{name} {figure}")) for figure, value in row.values.items()
        })
        for name, row in rows.items()
    }  # fmt: skip


def chosen(rows: Mapping[str, SystemRow]) -> dict[str, str]:
    """Returns system -> the candidate with the least mean dev error on its sets; the first of equal ones.

    Raises:
        InputError: A candidate is not done.
    """
    systems = dict.fromkeys(name.rpartition("-")[0] for name in rows if name.endswith(CANDIDATES))
    found = {}
    for system in systems:
        missing = [word for word in CANDIDATES if f"{system}-{word}" not in rows]
        if missing:
            raise InputError(f"{system}-{missing[0]} is not done; run wfc compare configs/compare-confirm-tuning.yaml again")
        found[system] = min(CANDIDATES, key=lambda word, of=system: rows[f"{of}-{word}"].values["new"].value)
    return found


def with_choice(text: str, system: str, word: str) -> str:
    """Returns the configuration with the rate of a candidate in a system's block. Raises InputError where there is none.

    The rate of `same` stands in the file that was committed with the plan.
    """
    knob = KNOBS.get(system, "train.lr")
    block = re.search(rf"^    {re.escape(system)}:.*(?:\n      .*)*", text, re.MULTILINE)
    rate = re.search(rf"{re.escape(knob)}: ([\d.e+-]+)", block[0]) if block else None
    if block is None or rate is None:
        raise InputError(f"{CONFIG}: {system} has no {knob}; take the file of the plan's commit")
    value = float(rate[1]) * {"half": 0.5, "same": 1.0, "twice": 2.0}[word]
    written = f"{value:.1f}" if knob == "centralize.scale" else f"{value:.1e}".replace("e-0", "e-")
    changed = block[0][: rate.start(1)] + written + block[0][rate.end(1) :]
    return text[: block.start()] + changed + text[block.end() :]


def choose(folder: Path) -> None:
    """Puts the chosen rates into the configuration, and keeps the counts that they were chosen by."""
    KEPT.mkdir(exist_ok=True)
    if (KEPT / TUNING).exists():
        print(f"{KEPT / TUNING} is there: the rates were chosen")
        return
    words = chosen({row.system: row for row in system_rows(read_counts(folder / COUNTS))})
    text = CONFIG.read_text(encoding="utf-8")
    for system, word in words.items():
        text = with_choice(text, system, word)
        print(f"{system}: {word}")
    CONFIG.write_text(text, encoding="utf-8")
    shutil.copyfile(folder / COUNTS, KEPT / TUNING)


def change(value: Value) -> str:
    """Returns a relative change in percent with its interval."""
    if value.low is None or value.high is None:
        return f"{100 * value.value:+.1f}"
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def difference(value: Value) -> str:
    """Returns the difference to the reference in points with its interval and its p; bold where it is beyond chance."""
    if value.difference is None or value.difference_low is None or value.difference_high is None:
        return "-"
    text = f"{100 * value.difference:+.1f} [{100 * value.difference_low:+.1f}, {100 * value.difference_high:+.1f}]"
    text += "" if value.p_holm is None else f", p {value.p_holm:.2g}"
    return f"**{text}**" if value.p_holm is not None and value.p_holm <= 0.05 else text


def verdicts(rows: Mapping[str, SystemRow]) -> list[tuple[str, str]]:
    """Returns hypothesis -> `holds`, `fails` or `open`, by the rules of the plan."""
    ours, others = rows[REFERENCE].values, rows
    new, kept = ours["new_relative"], ours["protected_relative"]
    return [
        ("H1", _beyond(others["untouched"].values["new"], wanted=1)),
        ("H2", _below(new, AIM)),
        ("H3", _below(kept, MARGIN)),
        ("H4", _equal([others["sequential-slow"].values[name] for name in PRIMARY])),
        ("H5", _beyond(others["mean-3-full-mid"].values["new"], wanted=-1)),
        *((f"H6 {name}", _beyond(others[name].values["new"], wanted=1)) for name in ("lwf", "ihr", "fta")),
    ]


def _beyond(value: Value, wanted: int) -> str:
    """Says whether a system differs from the reference beyond chance in the wanted direction of its error: 1 is more."""
    if value.p_holm is None or value.p_holm > 0.05 or value.difference is None:
        return "open"
    return "holds" if (value.difference > 0) == (wanted > 0) else "fails"


def _below(value: Value, limit: float) -> str:
    if value.low is None or value.high is None:
        return "open"
    return "holds" if value.high <= limit else "fails" if value.low > limit else "open"


def _equal(values: Sequence[Value]) -> str:
    limits = [(value.difference_low, value.difference_high) for value in values]
    if any(low is None or high is None for low, high in limits):
        return "open"
    if all(low >= -EQUAL and high <= EQUAL for low, high in limits):  # type: ignore[operator]
        return "holds"
    return "fails" if any(low > EQUAL or high < -EQUAL for low, high in limits) else "open"  # type: ignore[operator]


def table(counted: Counted) -> list[str]:
    """Returns the lines of the table and of the verdicts."""
    rows = rows_with_family(counted)
    cells: list[Sequence[str]] = [
        (
            "system",
            "new, relative",
            "protected, relative",
            "new: points against mean-3",
            "protected: points against mean-3",
            "seeds",
        )
    ]
    for name, row in rows.items():
        shown = [change(row.values[f"{figure}_relative"]) for figure in PRIMARY]
        shown += [difference(row.values[figure]) for figure in PRIMARY]
        cells.append((name, *shown, f"{len(row.seeds)}/{row.num_planned}"))
    said = [("hypothesis", "verdict"), *verdicts(rows)] if {*counted.systems} == {*rows} else []
    return [*lines_of(cells), *(lines_of(said) if said else [])]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", type=Path, metavar="FOLDER", help="of the comparison of candidates")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="of the comparison")
    options = parser.parse_args()
    if options.choose:
        choose(options.choose)
        return
    if options.take:
        KEPT.mkdir(exist_ok=True)
        shutil.copyfile(options.take / COUNTS, KEPT / COUNTS)
    counted = read_counts(KEPT / COUNTS)
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table(counted)), encoding="utf-8")


def with_table(page: str, lines: Sequence[str]) -> str:
    """Returns the page with these lines between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{chr(10).join(lines)}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    main()
