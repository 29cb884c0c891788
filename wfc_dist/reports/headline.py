"""What a run learned and what it forgot, in whole sentences, from the same figures as the tables."""

from collections.abc import Sequence

from wfc_dist.evaluation.continual import Change, Estimate, Summary
from wfc_dist.evaluation.intervals import TOO_FEW
from wfc_dist.reports.tables import between

_AT_MOST = 6  # names in a sentence


def headline(summary: Summary, confidence: float) -> list[str]:
    """Returns what stands at the top of a report: the count of `Summary.sentence`, what was learned, and what was forgotten."""
    if not summary.changes:
        return [summary.sentence]
    estimates = {estimate.name: estimate for estimate in summary.estimates}
    learned = [change for change in summary.changes if not change.protected]
    protected = [change for change in summary.changes if change.protected]
    level = f"{100 * confidence:.0f} %"
    said = [summary.sentence]
    if learned:
        said.append(_sets(learned, "learned", "relative change of their mean error", estimates["new_relative"], level))
        said.append(_later(estimates["bwt"]))
    if protected:
        said.append(_sets(protected, "protected", "relative change of their mean error", estimates["protected_relative"], level))
    return [sentence for sentence in said if sentence]


def _sets(changes: Sequence[Change], kind: str, what: str, estimate: Estimate, level: str) -> str:
    names = f"the {len(changes)} {kind} sets" if len(changes) > 1 else f"the {kind} set {changes[0].name}"
    if estimate.value is None:
        head = f"On {names} there is no relative change of the error, since base 0 makes no error on {_rootless(changes)}"
    else:
        interval = between(estimate.low, estimate.high, "+")
        found = f"{100 * estimate.value:+.1f} %" + (f" ({level} interval {interval})" if interval else " (without an interval)")
        head = (
            f"On {names} the {what} is {found}" if len(changes) > 1 else f"On {names} the relative change of the error is {found}"
        )
    parts = [
        f"{_listed([change.name for change in changes if change.verdict == verdict])} {words}"
        for verdict, words in (("improved", "improved"), ("worse", "got worse"))
        if any(change.verdict == verdict for change in changes)
    ]
    few, unsure = ([change.name for change in changes if change.verdict == word] for word in (TOO_FEW, "unchanged"))
    if few:
        parts.append(f"{_listed(few)} {'has' if len(few) == 1 else 'have'} too few units to say")
    if parts and unsure:
        parts.append("the others did not change beyond chance")
    elif unsure:
        parts.append("none of them changed beyond chance" if len(unsure) > 1 else "that is not beyond chance")
    return head + "".join(f"; {part}" for part in parts) + "."


def _rootless(changes: Sequence[Change]) -> str:
    return _listed([change.name for change in changes if not change.before]) or "a set"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_AT_MOST])
    if len(names) > _AT_MOST:
        return f"{', '.join(shown)} and {len(names) - _AT_MOST} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def _later(estimate: Estimate) -> str:
    """Returns what later rounds did to what earlier rounds learned."""
    if not estimate.value or estimate.mark not in ("lower", "higher", "same"):
        return ""
    interval = f"{100 * estimate.value:+.1f} points {between(estimate.low, estimate.high, '+')}"
    if estimate.mark == "lower":
        return f"Later rounds took back a part of what earlier rounds had learned: backward transfer is {interval}."
    if estimate.mark == "higher":
        return f"Later rounds helped what earlier rounds had learned: backward transfer is {interval}."
    return f"No forgetting of what earlier rounds had learned can be seen: backward transfer is {interval}."
