"""The results as pages, and against earlier ones.

python benchmarks/report.py                  writes the pages of docs/performance/ and the summary of docs/performance.md
python benchmarks/report.py --against HEAD   prints what changed since a commit; ratios travel between machines, seconds don't
"""

import argparse
import json
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS

REPO = RESULTS.parent.parent
PAGE, FOLDER = REPO / "docs" / "performance.md", REPO / "docs" / "performance"
BEGIN, END = "<!-- made by benchmarks/report.py -->", "<!-- end -->"
TURBO, WARM = "new-base-whisper-large-v3-turbo-float16", "warm turnaround"
SUMMARY = [
    ("a new base of whisper-large-v3-turbo, of three adapters", TURBO, "ours", "peft, float32",
     "merging copies with peft in float32"),
    ("the same", TURBO, "ours", "cp", "copying the checkpoint"),
    ("a new base of 6.7 billion parameters", "new-base-7b-float16-3-shards", "ours", "cp", "copying the checkpoint"),
    ("the mean of 64 adapters on 8 ranks", "average-whisper-base", "K = 64, 8 ranks: ours",
     "K = 64, 8 ranks: all-gather of factors", "gathering all factors"),
    ("the same", "average-whisper-base", "K = 64, 8 ranks: ours", "K = 64, 8 ranks: dense all-reduce", "a float32 all-reduce"),
    ("from a round's last adapter to the next round's first step", "rounds", WARM, "cold start of the command", "starting anew"),
    ("adapters of a warm round, 2 trainers", "overhead", "wfc run, 2 trainers, 2 cores",
     "accelerate launch, 2 trainers, 2 cores", "the same trainers by hand"),
    ("training of one adapter, 648 s of speech", "training", "ours", "Seq2SeqTrainer", "Seq2SeqTrainer, each clip padded"),
    ("94 clips decoded one by one", "evaluation", "ours", "pipeline", "the Transformers pipeline"),
]  # fmt: skip
"""What is done, the result's name, our way, the other way, and what the other way is."""


def table(result: Mapping[str, Any]) -> str:
    """Returns one result as Markdown: question, command, machine, a row per way, and error against time where it was measured."""
    machine = ", ".join(f"{value} CPUs" if key == "cpus" else f"{key} {value}" for key, value in result["machine"].items())
    origin = textwrap.fill(f"`{result['command']}`; {result['date']}, {machine}.", 138)
    title = [f"## {result['question']}", "", origin, ""]
    if "plot" in result:
        title += [f"![{result['question']}](../images/{result['plot']})", ""]
    if "times_ours" not in result["rows"][0]:  # no ways that are compared: its columns as they are
        heads = list(result["rows"][0])
        rows = [_row([str(row[key]) for key in heads]) for row in result["rows"]]
        return "\n".join([*title, _row(heads), _row(["---"] * len(heads)), *rows, ""])
    extra = [key for key in result["rows"][0] if key not in ("way", "median_s", "seconds", "peak_mb", "times_ours", "points")]
    heads = ["way", "seconds (median)", "times ours", "peak memory", *(key.replace("_", " ") for key in extra)]
    lines = [*title, _row(heads), _row(["---"] * len(heads))]
    for row in result["rows"]:
        first = [row["way"], f"{row['median_s']:.2f}", f"{row['times_ours']:.2f}", f"{row['peak_mb']} MB"]
        lines.append(_row([*first, *(str(row.get(key, "-")) for key in extra)]))
    if all("points" in row for row in result["rows"]):
        lines += ["", "Word error rate on held-out clips against time:", "", *_points(result["rows"])]
    return "\n".join([*lines, ""])


def _points(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    steps = [point["step"] for point in rows[0]["points"]]
    lines = [_row(["way", *(f"after step {step}" for step in steps)]), _row(["---"] * (len(steps) + 1))]
    for row in rows:
        cells = [f"{point['wer_percent']} % {point['interval']} at {point['seconds']:.0f} s" for point in row["points"]]
        lines.append(_row([row["way"], *cells]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page_of(result: Mapping[str, Any]) -> Path:
    """Returns the page that shows a result: one for each benchmark."""
    return FOLDER / f"{Path(result['command'].split()[1]).stem.replace('_', '-')}.md"


def summary() -> str:
    """Returns the table of the page: seconds of ours and of what a user would do instead."""
    lines = [_row(["what", "ours", "beside", "its time", "times ours"]), _row(["---"] * 5)]
    for what, name, ours, other, instead in SUMMARY:
        result = json.loads((RESULTS / f"{name}.json").read_text())
        ours_s, other_s = ({row["way"]: row["median_s"] for row in result["rows"]}[way] for way in (ours, other))
        page = page_of(result).relative_to(PAGE.parent)
        lines.append(_row([f"[{what}]({page})", f"{ours_s:.2f} s", instead, f"{other_s:.2f} s", f"{other_s / ours_s:.2f}"]))
    return "\n".join([*lines, ""])


def write_pages() -> list[Path]:
    """Writes a page for each benchmark, and the summary between the marks of docs/performance.md; returns the paths."""
    tables: dict[Path, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        tables.setdefault(page_of(result), []).append(table(result))
    FOLDER.mkdir(exist_ok=True)
    for page, shown in tables.items():
        lines = [
            f"# Measured: {page.stem}",
            "",
            "Made by `benchmarks/report.py`. [Performance](../performance.md) says what is compared.",
        ]
        page.write_text("\n".join([*lines, "", *shown]), encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{summary()}{END}{rest.partition(END)[2]}", encoding="utf-8")
    return [*tables, PAGE]


def compare(revision: str) -> None:
    """Prints each way's ratio to ours and memory, at a commit and now."""
    for path in sorted(RESULTS.glob("*.json")):
        shown = ["git", "show", f"{revision}:{path.relative_to(REPO).as_posix()}"]
        done = subprocess.run(shown, capture_output=True, text=True, cwd=REPO, check=False)
        before = {next(iter(row.values())): row for row in json.loads(done.stdout)["rows"]} if done.returncode == 0 else {}
        print(f"{path.stem}" + ("" if before else f" (not in {revision})"))
        for row in json.loads(path.read_text())["rows"]:
            if "times_ours" not in row:
                print(f"  was {list((before.get(next(iter(row.values()))) or {}).values())[1:]}, now {list(row.values())}")
                continue
            old = before.get(row["way"])
            was = f"{old['times_ours']:>8.2f} x ours {old['median_s']:>9.2f} s {old['peak_mb']:>6} MB  ->" if old else " " * 40
            print(f"  {row['way']:<28}{was} {row['times_ours']:>8.2f} x ours {row['median_s']:>9.2f} s {row['peak_mb']:>6} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION")
    options = parser.parse_args()
    if options.against:
        compare(options.against)
    else:
        import paper  # loads torch

        paper.write(paper.plan(paper.Assumed()))
        for page in [*write_pages(), paper.PAGE]:
            print(f"wrote {page.relative_to(REPO)}")


if __name__ == "__main__":
    main()
