"""Results of comparisons, put together for the pages of the study.

A sitting is one comparison on one kind of processor. Another kind rounds sums differently, and the error rate of a small test set
moves by some tenths. Every system is compared to the reference of its own sitting. Sittings with the same decoding, whose
reference came out the same, count as one. Sittings with other seeds, or decoded clip by clip, have tables of their own.
"""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wfc_dist.evaluation.hypotheses import Hypothesis, read_hypotheses

ANALYZED = "mean-3"

Row = Mapping[str, Any]


def sitting(folder: Path) -> dict[str, Any]:
    """Returns what the pages need from a comparison's folder."""
    trained, taken, seconds = 0, 0, 0.0
    compared = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    runs = {(row["system"], str(seed)) for row in compared["rows"] for seed in row["seeds"]}
    finished = [path for path in sorted(folder.glob("runs/*")) if system_and_seed(path) in runs]
    for ledger in (path / "ledger.jsonl" for path in finished):
        for line in map(json.loads, ledger.read_text(encoding="utf-8").splitlines()):
            if line["event"] == "adapter":
                fresh = not line.get("from_pool")
                trained, taken = trained + fresh, taken + (not fresh)
                seconds += line.get("seconds", 0.0) if fresh else 0.0
    analyzed = [path for path in finished if system_and_seed(path)[0] == ANALYZED]
    analyses = [found for path in analyzed for found in path.glob("report/analysis/analysis.json")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version(), "torch": version("torch")},
        "trained": {"adapters": trained, "from the pool": taken, "seconds": round(seconds)},
        "verdicts": [line for path in analyses for line in verdicts_of(path)],
        "windows": windows(finished),
        "fits": [fit(found) for path in finished for found in sorted(path.glob("round-*/fit/fitted.json"))],
        "compare": compared,
    }


def system_and_seed(run: Path) -> tuple[str, str]:
    """Returns what the name of a run's directory says."""
    system, _, rest = run.name.partition("-seed")
    return system, rest.partition("-")[0]


class Study:
    """The sittings put together.

    Attributes:
        main: The largest sitting that is decoded like the newest, and those with its seeds whose reference came out the same to
            the last digit.
        rows: System -> row: of the main sittings, then what others with the same seeds add, under a marked name.
        ratios: System of `rows` -> its mean error on the new sets relative to the untouched model, a ratio of means.
        notes: A sentence about each sitting with marked systems.
        fits: What was fitted in the main sittings, and in other sittings for other runs.
        by_seed: Seeds -> system -> row, from the largest sitting with those seeds that has the system.
        by_clip: System -> row, from the sittings that were decoded clip by clip.
        elsewhere: Sittings on other processors: the same seeds and decoding, another result of the reference.
    """

    def __init__(self, sittings: Sequence[Mapping[str, Any]]) -> None:
        newest = _decoding([tree for tree in sittings if _packed(tree)][-1])
        largest = sorted(sittings, key=lambda tree: (_decoding(tree) != newest, -len(tree["compare"]["rows"])))  # stable
        first, *others = [tree for tree in largest if _packed(tree)]
        self.by_clip: dict[str, Row] = {}
        for tree in (tree for tree in largest if not _packed(tree)):
            self.by_clip = rows_of(tree) | self.by_clip
        self.reference, self.main, self.notes = first["compare"]["reference"], [first], list[str]()
        self.rows: dict[str, Row] = rows_of(first)
        self.ratios = ratio_of_means(first)
        self.by_seed = {seeds_of(first): self.rows}
        for tree in others:
            if seeds_of(tree) != seeds_of(first):
                self.by_seed[seeds_of(tree)] = rows_of(tree) | self.by_seed.get(seeds_of(tree), {})
            elif came_out_the_same(tree, first):
                self.main.append(tree)
                self.rows |= {name: row for name, row in rows_of(tree).items() if name not in self.rows}
                self.ratios = ratio_of_means(tree) | self.ratios
        alike = [tree for tree in others if seeds_of(tree) == seeds_of(first) and _decoding(tree) == _decoding(first)]
        self.elsewhere = [tree for tree in alike if tree not in self.main]
        self.fits = [item for tree in self.main for item in tree.get("fits", ())]
        for tree in others:
            known = {item["run"] for item in self.fits}
            self.fits += [item for item in tree.get("fits", ()) if item["run"] not in known]
            if seeds_of(tree) == seeds_of(first) and tree not in self.main:
                self._add_marked(tree, "" if _decoding(tree) == _decoding(first) else ", decoded with other options")

    def _add_marked(self, tree: Mapping[str, Any], how: str) -> None:
        found, mark = rows_of(tree), len(self.notes) + 2
        if added := [name for name in found if name not in self.rows]:
            self.rows |= {name: {**found[name], "system": f"{name} ({mark})"} for name in added}
            self.ratios |= {name: value for name, value in ratio_of_means(tree).items() if name in added}
            new, protected = (percent(found[self.reference]["values"][name]["value"], False) for name in ("new", "protected"))
            self.notes.append(
                f"({mark}) of another sitting, {tree['date']}{how}, and compared to {self.reference} there: {new} % on the "
                f"new sets, {protected} % on the protected ones."
            )


def percent(value: float, signed: bool = True) -> str:
    """Returns 100 * value with one digit."""
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def came_out_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Says whether two sittings with the same seeds count as one: same decoding, same reference to the last digit."""
    reference = one["compare"]["reference"]
    return _decoding(one) == _decoding(other) and rows_of(one)[reference] == rows_of(other)[reference]


def holds(sitting: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Says whether a sitting has all that another has: it is the same sitting at a later time."""
    alike = seeds_of(sitting) == seeds_of(other) and came_out_the_same(sitting, other)
    return alike and set(rows_of(other)) <= set(rows_of(sitting))


def rows_of(tree: Mapping[str, Any]) -> dict[str, Row]:
    """Returns system -> row of a sitting."""
    return {row["system"]: row for row in tree["compare"]["rows"]}


def ratio_of_means(tree: Mapping[str, Any]) -> dict[str, float]:
    """Returns system -> mean error on the new sets relative to the untouched model, which this sitting scored, too."""
    means = {system: row["values"]["new"]["value"] for system, row in rows_of(tree).items()}
    return {system: mean / means["untouched"] - 1 for system, mean in means.items()} if "untouched" in means else {}


def _decoding(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    return tree["compare"]["decoding"]  # type: ignore[no-any-return]


def _packed(tree: Mapping[str, Any]) -> bool:
    return bool(_decoding(tree)["packing"])


def seeds_of(tree: Mapping[str, Any]) -> str:
    """Returns the seeds of a sitting, for tables."""
    return ", ".join(map(str, tree["compare"]["seeds"]))


def verdicts_of(path: Path) -> list[dict[str, Any]]:
    """Returns every round's verdicts of an analysis."""
    return [line for found in json.loads(path.read_text(encoding="utf-8"))["rounds"] for line in found["verdicts"]]


def fit(path: Path) -> dict[str, Any]:
    """Returns what was fitted in one round of a run."""
    found = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: found[key] for key in ("weights", "scale", "dev_error", "dev_error_at_start", "num_tried")}
    return {"run": path.parents[2].name, "round": int(path.parents[1].name.removeprefix("round-")), **kept}


def windows(runs: Sequence[Path]) -> dict[str, int]:
    """Returns how many windows the models of these runs wrote, and how many of those were loops and were decoded clip by clip."""
    found: dict[tuple[str, str], list[Hypothesis]] = {}
    for path in (path for run in runs for path in run.glob("round-*/evaluation/*/*.jsonl")):
        header, hypotheses = read_hypotheses(path)
        found[header["model_sha256"], header["fingerprint"]] = hypotheses  # base 0 counts once, however many runs have it
    return {
        "models": len({model for model, _ in found}),
        "decoded": sum(map(len, found.values())),
        "loops": sum(item.apart for hypotheses in found.values() for item in hypotheses),
    }
