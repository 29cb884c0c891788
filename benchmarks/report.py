"""The results as a page, and against earlier ones.

python benchmarks/report.py                  writes the tables of docs/performance.md and docs/scale.md, and its plan
python benchmarks/report.py --against HEAD   prints what changed since a commit; ratios travel between machines, seconds don't
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS

REPO = RESULTS.parent.parent
PAGE = REPO / "docs" / "performance.md"  # of every result that names no other
BEGIN, END = "<!-- made by benchmarks/report.py -->", "<!-- end -->"


def table(result: Mapping[str, Any]) -> str:
    """Returns one result as Markdown: question, command, machine, a row per way, and error against time where it was measured."""
    machine = ", ".join(f"{value} CPUs" if key == "cpus" else f"{key} {value}" for key, value in result["machine"].items())
    title = [f"### {result['question']}", "", f"`{result['command']}`; {result['date']}, {machine}.", ""]
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
    """Returns the page that shows a result."""
    return REPO / "docs" / result["page"] if "page" in result else PAGE


def write_pages() -> list[Path]:
    """Replaces the tables of the pages and returns these; what is written around the tables stays."""
    tables: dict[Path, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        tables.setdefault(page_of(result), []).append(table(result))
    for page, shown in tables.items():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        text = "\n".join(shown)
        page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
    return list(tables)


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

        for page in write_pages():
            print(f"wrote {page.relative_to(REPO)}")
        paper.write(paper.plan(paper.Assumed()))


if __name__ == "__main__":
    main()
