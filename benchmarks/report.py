"""The results as a page, and against earlier ones.

python benchmarks/report.py                  writes the tables of docs/performance.md from benchmarks/results/
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
PAGE = REPO / "docs" / "performance.md"
BEGIN, END = "<!-- made by benchmarks/report.py -->", "<!-- end -->"


def table(result: Mapping[str, Any]) -> str:
    """Returns one result as Markdown: question, command, machine, a row per way, and error against time where it was measured."""
    machine = ", ".join(f"{value} CPUs" if key == "cpus" else f"{key} {value}" for key, value in result["machine"].items())
    extra = [key for key in result["rows"][0] if key not in ("way", "median_s", "seconds", "peak_mb", "times_ours", "points")]
    heads = ["way", "seconds (median)", "times ours", "peak memory", *(key.replace("_", " ") for key in extra)]
    lines = [f"### {result['question']}", "", f"`{result['command']}`; {result['date']}, {machine}.", ""]
    lines += [_row(heads), _row(["---"] * len(heads))]
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


def write_page() -> None:
    """Replaces the tables of the page; what is written around them stays."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(map(table, results))
    PAGE.write_text(f"{before}{BEGIN}\n{tables}{END}{after}", encoding="utf-8")


def compare(revision: str) -> None:
    """Prints each way's ratio to ours and memory, at a commit and now."""
    for path in sorted(RESULTS.glob("*.json")):
        shown = ["git", "show", f"{revision}:{path.relative_to(REPO).as_posix()}"]
        done = subprocess.run(shown, capture_output=True, text=True, cwd=REPO, check=False)
        before = {row["way"]: row for row in json.loads(done.stdout)["rows"]} if done.returncode == 0 else {}
        print(f"{path.stem}" + ("" if before else f" (not in {revision})"))
        for row in json.loads(path.read_text())["rows"]:
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
        write_page()
        print(f"wrote {Path(PAGE).relative_to(REPO)}")


if __name__ == "__main__":
    main()
