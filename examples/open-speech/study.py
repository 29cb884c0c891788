"""Writes the study's tables and figures from the results of the comparison.

The table of docs/study.md stands between two marks; the text around the marks stays. The generated pages of docs/study/ are
replaced whole: systems.md, figures.md, questions.md, checks.md. sittings.py says how sittings are put together.

    study.py --take runs/open-speech runs/open-speech-variants    takes the results over into study.json, which stands beside it
    study.py --add runs/open-speech                               adds a sitting: missing systems, other seeds, clip by clip
    study.py                                                      from the results that are there

`make study` runs everything from the packages to the pages.
"""

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from sittings import ANALYZED, Row, Study, holds, percent, rows_of, seeds_of, sitting, system_and_seed

from wfc_dist.reports.plots import Mark, marks_plot

HERE = Path(__file__).resolve().parent
RESULTS, PAGE, FOLDER = HERE / "study.json", HERE.parents[1] / "docs" / "study.md", HERE.parents[1] / "docs" / "study"
BEGIN, END = "<!-- made by examples/open-speech/study.py -->", "<!-- end -->"
MAIN = ["untouched", "individual", "sequential", "full", "full-slow", "fta", "running_average", "lwf", "ewc", "ihr", "mean-3",
        "mean-3-full-mid", "joint"]  # fmt: skip
QUESTIONS = {
    "Does a single adapter forget? Does sequential fine-tuning?": ["individual", "sequential", "sequential-slow", "full"],
    "Does centralization repair it, and how much is only the smaller step?": ["mean-3", "individual-third", "mean-1-third"],
    "Which K? (K = 1 is sequential fine-tuning)": ["sequential", "mean-2", "mean-3", "mean-6"],
    "Which step?": ["mean-3-half", "mean-3", "mean-3-double", "mean-6", "mean-6-double", "mean-6-triple"],
    "Step and weights found on dev error": ["mean-3", "mean-3-fitted", "mean-6", "mean-6-fitted"],
    "Whole weights instead of LoRA": ["full", "full-slow", "mean-1-third-full", "mean-3-full", "mean-3-full-mid",
                                      "mean-3-full-fitted", "mean-3-full-sum", "mean-6-full", "mean-6-full-double", "joint-full"],
    "Does weight decay matter?": ["mean-3", "mean-3-decay"],
    "mean or factor_mean? Other ways to merge the same adapters": ["mean-6", "factor-mean-6", "ties-6", "boosted-tsv-6"],
    "Other methods without old data": ["mean-3", "fta", "running_average", "lwf", "ewc", "bayesian", "ihr", "ihr-3"],
    "Distillation and centralization together": ["lwf", "mean-3", "mean-3-lwf", "mean-3-lwf-fitted", "mean-6-lwf-fitted"],
    "With old data, or all data at once": ["mean-3", "replay", "joint", "joint-full"],
}  # fmt: skip
COLUMNS = {"new_relative": "new, mean of ratios", "protected_relative": "protected, ratio of means", "bwt": "BWT, last sets 0",
           "forgetting": "forgetting, all sets"}  # fmt: skip
"""Figures by the formulas of the recorded comparisons, which `wfc compare` prints today under `new_relative_each`,
`protected_relative`, and with other sets under `bwt` and `forgetting`."""
CHANGED = "relative change of the error on the {} sets, percent"
AIM = -0.246  # of the new sets, relative to the untouched model: what the paper reports


def estimate(row: Row, name: str) -> str:
    """Returns a figure with its interval; - where the system has none."""
    value = row["values"].get(name)
    if value is None:
        return "-"
    signed = name not in ("forgetting", "own", "new", "protected")
    middle = percent(value["value"], signed)
    if value["low"] is None:
        return middle
    low, high = (percent(value[key], signed) for key in ("low", "high"))
    return f"{middle} [{low}, {high}]"


def against(row: Row, name: str) -> str:
    """Returns the paired difference to the reference in points; in bold where it is better or worse."""
    value = row["values"].get(name)
    if value is None or value["difference"] is None:
        return "-"
    text = percent(value["difference"])
    if value["difference_low"] is not None:
        text += f" [{percent(value['difference_low'])}, {percent(value['difference_high'])}]"
    return f"**{text}**" if value["verdict"] in ("better", "worse") else text


def lines_of(cells: Sequence[Sequence[str]]) -> list[str]:
    """Returns a Markdown table, the first line its head."""
    lines = [f"| {' | '.join(line)} |" for line in cells]
    return [lines[0], f"|{' --- |' * len(cells[0])}", *lines[1:], ""]


def comparison(study: Study, systems: Sequence[str]) -> list[str]:
    """Returns a table of the systems' figures and of their differences to the reference."""
    compared = [f"{name}: against {study.reference}" for name in ("new", "protected")]
    heads = ["system", "new, ratio of means", *COLUMNS.values(), "norm", *compared]
    cells = []
    for system in systems:
        row, ratio = study.rows[system], study.ratios.get(system)
        cells.append([row["system"], "-" if ratio is None else percent(ratio), *(estimate(row, name) for name in COLUMNS)])
        cells[-1] += [f"{row['norm']:.2f}", *(against(row, name) for name in ("new", "protected"))]
    return lines_of([heads, *cells])


def fitted(fits: Sequence[Row]) -> list[str]:
    """Returns a table of the weights and scales that were found on the dev splits."""
    cells = [["run", "round", "scale found", "weights", "dev error, uniform at scale 1 -> found", "mixtures tried"]]
    for item in fits:
        weights = ", ".join(f"{name} {value:.2f}" for name, value in item["weights"].items())
        errors = f"{percent(item['dev_error_at_start'], False)} -> {percent(item['dev_error'], False)}"
        cells.append([item["run"], str(item["round"]), f"{item['scale']:.2f}", weights, errors, str(item["num_tried"])])
    return lines_of(cells)


def ahead(study: Study) -> list[str]:
    """Says which systems are ahead of the reference, and whether the aim is reached, by the ratio of means."""
    lines, rows, reference = [], list(study.rows.values()), study.reference
    for name, label in (("new", "new sets"), ("protected", "protected sets")):
        for verdict in ("better", "worse"):
            found = [row["system"] for row in rows if row["values"].get(name, {}).get("verdict") == verdict]
            lines.append(f"- {label}: {verdict} than {reference}: {', '.join(found) or 'none'}.")
    reached = [
        row["system"] for system, row in study.rows.items()
        if study.ratios.get(system, 0.0) <= AIM and row["values"]["protected_relative"]["value"] <= 0
    ]  # fmt: skip
    lines.append(
        f"- {-100 * AIM:.1f} % below the untouched model on the new sets with the protected sets no worse "
        f"(ratios of means, point estimates): "
        f"{', '.join(reached) or 'none'}."
    )
    return [*lines, ""]


def figures(rows: Sequence[Row]) -> list[str]:
    """Draws the figures; returns the lines that show them."""

    def triple(row: Row, name: str) -> tuple[float, float, float]:
        value = row["values"][name]
        low, high = (value["value"] if value[key] is None else value[key] for key in ("low", "high"))
        return 100 * low, 100 * value["value"], 100 * high

    def mark(row: Row, x: tuple[float, float, float], name: str) -> Mark:
        return Mark(row["system"], x, triple(row, name), strong=row["system"] == "untouched")

    x, y = "protected_relative", "new_relative"
    drawn = {
        "plane": (
            "What is learned against what is kept; left and down is better on both",
            marks_plot(
                [mark(row, triple(row, x), y) for row in rows], (CHANGED.format("protected"), CHANGED.format("new")), zero=True
            ),
        )
    }
    for name, label in (("new", "new sets"), ("protected", "protected sets")):
        marks = [mark(row, (row["norm"],) * 3, name) for row in rows]
        plot = marks_plot(marks, ("norm of the whole update, Frobenius", f"error on the {label}, percent"), zero=False)
        drawn[f"norm-{name}"] = (f"Error on the {label} against the norm of the update", plot)
    lines = []
    for name, (title, svg) in drawn.items():
        text = svg if "xmlns=" in svg[:500] else svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")
        lines += [f"![{title}]({name}.svg)", "", f"*{title}.*", ""]
    return lines


def over_seeds(study: Study) -> list[str]:
    """Returns the table of the systems that ran with more than one seed, with the means over the seeds."""
    seeds = list(study.by_seed)
    systems = [name for name in study.rows if name != "untouched" and sum(name in found for found in study.by_seed.values()) > 1]
    if not systems:
        return []
    differences = [f"{name}: against {study.reference}" for name in ("new", "protected")]
    cells = [["system", "seeds", "new, mean of ratios", "mean", "protected, ratio of means", "mean", *differences]]
    for system in systems:
        own = [seed for seed in seeds if system in study.by_seed[seed]]
        rows = [study.by_seed[seed][system] for seed in own]
        cells.append([system, "; ".join(own)])
        for name in ("new_relative", "protected_relative"):
            values = [row["values"][name]["value"] for row in rows]
            cells[-1] += ["; ".join(map(percent, values)), percent(sum(values) / len(values))]
        cells[-1] += ["; ".join(against(row, name) for row in rows) for name in ("new", "protected")]
    return ["## Is it the seed?", "", *lines_of(cells)]


def elsewhere(study: Study) -> list[str]:
    """Returns the table of the systems that also ran on other processors."""
    found = [rows_of(tree) for tree in study.elsewhere]
    here = {name: row for part in study.main for name, row in rows_of(part).items() if name != "untouched"}
    systems = [name for name in here if any(name in rows for rows in found)]
    if not systems:
        return []
    cells = [["system", "new", "there", "protected", "there"], *([system] for system in systems)]
    apart = []
    for name in ("new", "protected"):
        differences = [0.0]
        for system, line in zip(systems, cells[1:], strict=True):
            value = here[system]["values"][name]["value"]
            others = [rows[system]["values"][name]["value"] for rows in found if system in rows]
            line += [percent(value, False), "; ".join(percent(other, False) for other in others)]
            differences += [abs(value - other) for other in others]
        apart.append(f"{percent(max(differences), False)} points on the {name} sets")
    return [
        "## Is it the processor? The same on another one",
        "",
        f"Largest difference: {' and '.join(apart)}.",
        "",
        *lines_of(cells),
    ]


def loops(study: Study) -> list[str]:
    """Returns a sentence on how many windows were loops."""
    counts = [part["windows"] for part in study.main if "windows" in part]
    if not counts:
        return []
    models, decoded, looped = (sum(count[key] for count in counts) for key in ("models", "decoded", "loops"))
    return [f"{looped} of the {decoded} windows that {models} models wrote were loops and were decoded clip by clip.", ""]


def clip_by_clip(study: Study) -> list[str]:
    """Returns the table of the systems that were decoded again clip by clip, beside the same in windows."""
    if not study.by_clip:
        return []
    cells = [["system", "new", "in windows", "protected", "in windows", "new, mean of ratios", "protected, ratio of means",
              *(f"{name}: against {study.reference}" for name in ("new", "protected"))]]  # fmt: skip
    for system, row in study.by_clip.items():
        cells.append([system])
        for name in ("new", "protected"):
            windows = study.rows[system]["values"][name]["value"] if system in study.rows else None
            cells[-1] += [estimate(row, name), "-" if windows is None else percent(windows, False)]
        cells[-1] += [estimate(row, f"{name}_relative") for name in ("new", "protected")]
        cells[-1] += [against(row, name) for name in ("new", "protected")]
    return ["## Is it the windows? The same clip by clip", "", *lines_of(cells)]


def provenance(study: Study) -> list[str]:
    """Says when, where and with which packages the figures were made, and how to read them."""
    tree, trained = study.main[0], [part["trained"] for part in study.main]
    compared = tree["compare"]
    adapters, pooled, seconds = (sum(part[key] for part in trained) for key in ("adapters", "from the pool", "seconds"))
    machine = ", ".join(f"{value} CPUs" if key == "cpus" else f"{key} {value}" for key, value in tree["machine"].items())
    return [
        f"`make study`; {' and '.join(dict.fromkeys(part['date'] for part in study.main))}, {machine}. "
        f"{len({name for part in study.main for name in rows_of(part)}) - 1} systems, seed {seeds_of(tree)}; "
        f"{adapters} adapters trained ({seconds / 60:.0f} minutes), {pooled} taken from the pool.", "",
        f"Rates are {compared['metric'].upper()} in percent, decoded in windows of several clips; brackets are "
        f"{100 * compared['confidence']:.0f} % bootstrap intervals over clips, bold where the paired difference excludes 0.", "",
        *loops(study),
    ]  # fmt: skip


def all_systems(study: Study) -> list[str]:
    """Returns the rates of all systems, the notes on the marked ones, and which are ahead of the reference."""
    heads = ["system", "own", "new", "protected", "FWT"]
    cells = [
        [row["system"], *(estimate(row, name) for name in ("own", "new", "protected", "fwt"))] for row in study.rows.values()
    ]
    notes = [line for note in study.notes for line in (note, "")]
    return [*lines_of([heads, *cells]), *notes, *ahead(study)]


def questions(study: Study) -> list[str]:
    """Returns a table for each question, and what was fitted for its systems."""
    lines = []
    for question, systems in QUESTIONS.items():
        found = [name for name in systems if name in study.rows]
        if any(name != study.reference for name in found):
            lines += [f"## {question}", "", *comparison(study, found)]
        if fits := [item for item in study.fits if system_and_seed(Path(item["run"]))[0] in systems]:
            lines += fitted(fits)
    return lines


def mechanisms(study: Study) -> list[str]:
    """Returns the verdicts on the mechanisms, of the first sitting that has them."""
    verdicts = next((part["verdicts"] for part in study.main if part["verdicts"]), None)
    if not verdicts:
        return []
    cells = [
        [str(line["round_index"]), line["mechanism"], line["measured"].removeprefix("measured "), line["expected"], line["word"]]
        for line in verdicts
    ]
    heads = ["round", "mechanism", "measured", "expected", "verdict"]
    return [f"## Are the weights Gaussian? The mechanisms, in {ANALYZED}", "", *lines_of([heads, *cells])]


def pages(study: Study) -> dict[str, str]:
    """Returns name -> text of the generated pages of the folder; draws the figures."""
    made = {
        "systems": ("all systems", all_systems(study)),
        "figures": ("figures", figures(list(study.rows.values()))),
        "questions": ("one table a question", questions(study)),
        "checks": ("seeds, processors, windows, mechanisms",
                   over_seeds(study) + elsewhere(study) + clip_by_clip(study) + mechanisms(study)),
    }  # fmt: skip
    about = [
        "Made by `examples/open-speech/study.py`. [The study](../study.md) says what the systems are.",
        "",
        *provenance(study),
    ]
    return {name: "\n".join([f"# Study: {title}", "", *wrapped([*about, *lines])]) for name, (title, lines) in made.items()}


def wrapped(lines: Sequence[str]) -> list[str]:
    """Returns the lines with long ones folded; tables stay."""
    fold = textwrap.TextWrapper(138, break_on_hyphens=False).fill
    return [
        line if line.startswith("|") else fold(line).replace("\n", "\n  " if line.startswith("- ") else "\n") for line in lines
    ]


def summary(study: Study) -> str:
    """Returns the table of the main systems."""
    return "\n".join(comparison(study, [name for name in MAIN if name in study.rows]))


def main() -> None:
    """Takes results over, if asked to, and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FOLDER")
    options = parser.parse_args()
    sittings = [] if options.take else json.loads(RESULTS.read_text(encoding="utf-8"))["sittings"]
    for folder in options.take + options.add:
        added = sitting(folder)
        reference = (sittings or [added])[0]["compare"]["reference"]
        if reference not in rows_of(added):
            parser.error(
                f"{folder} has no row of {reference}, which every system is compared to in its own sitting; "
                f"first run there: wfc compare CONFIG --only {reference}"
            )
        sittings = [tree for tree in sittings if not holds(added, tree)] + [added]
    if options.take or options.add:
        RESULTS.write_text(json.dumps({"sittings": sittings}, indent=1) + "\n", encoding="utf-8")
    study = Study(sittings)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{summary(study)}{END}{rest.partition(END)[2]}", encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages(study).items():
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"wrote {PAGE} and the pages of {FOLDER}")


if __name__ == "__main__":
    main()
