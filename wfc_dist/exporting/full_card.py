"""The card of a base that is handed on: that of the commit, with its errors by test set and how the copy was made."""

from collections.abc import Mapping, Sequence
from typing import Any

from wfc_dist.config.schema import Config
from wfc_dist.runs import cards, provenance
from wfc_dist.runs.cards import Use
from wfc_dist.runs.handle import Run


def full_card(run: Run, index: int, copy: Sequence[str] = (), use: Use | None = None) -> str:
    """Returns the card of base `index` with its scores, where it has any.

    Args:
        run: The run.
        index: Of the base.
        copy: Lines about this copy: format, tool, verification. No text of a clip belongs here: clips may be private.
        use: Who loads it, and how; by default Transformers.
    """
    scores, first = run.scores_of(index), run.scores_of(0)
    sets = scores.sets if scores else {}
    chain = provenance.chain_of(run.paths, index)
    more = error_table(sets, first.sets if first and index else {}, index) if sets else []
    if copy:
        more += ["", "## This copy", "", *copy]
    results = model_index(run.config, sets)
    learned = provenance.learned_in(run.paths, run.config, chain)
    return cards.base_card(run.config, provenance.root_of(run.paths), chain, learned, more=more, results=results, use=use)


def error_table(sets: Mapping[str, Mapping[str, Any]], first: Mapping[str, Mapping[str, Any]], index: int) -> list[str]:
    """Returns the lines of the table of errors in percent, those of base 0 beside them where it was scored."""
    lines = ["", "## Error by test set", "", "Percent, with intervals.", ""]
    lines += [
        f"| test set | metric | clips | units |{' base 0 |' if first else ''} base {index} |",
        "|---|---|---|---|---|" + "---|" * bool(first),
    ]
    for name, score in sets.items():
        before = f" {_rate(first.get(name))} |" if first else ""
        lines.append(
            f"| {name} | {score['metric']} | {score['num_clips']} | {score.get('num_units') or '-'} |{before} {_rate(score)} |"
        )
    return lines


def _rate(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    interval = "" if score["low"] is None else f" [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
    return f"{100 * score['rate']:.1f}{interval}"


def model_index(config: Config, sets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the results in the form of the hub's metadata (`model-index`)."""
    found, known = [], config.test_sets()
    for name, score in sets.items():
        data = known.get(name)
        where = data.source if data is not None and data.format == "hub" else name
        found.append({
            "task": {"type": cards.TASK},
            "dataset": {"name": name, "type": where},
            "metrics": [{"type": score["metric"], "value": round(100 * score["rate"], 2), "name": f"{score['metric']}, percent"}],
        })  # fmt: skip
    return found
