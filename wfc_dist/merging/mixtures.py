"""Finds the mixture of a round's adapters with the least error: a pattern search over weights, scale, or both. Pure.

Coefficients of a merge chosen on held-out data: model soups (arXiv 2203.05482) take or leave whole models, LoraHub (arXiv
2307.13269) searches without gradients. Here a move is tried in both directions of everything that is free, the best one is
taken, and where none helps moves get smaller (Hooke and Jeeves 1961).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEPS = (0.5, 0.25, 0.125)
"""Sizes of the moves, one after the other."""


@dataclass(frozen=True)
class Mixture:
    """scale * sum_i weights_i / sum(weights) * delta_i: how K adapters make one update."""

    weights: tuple[float, ...]
    scale: float

    def coefficients(self) -> list[float]:
        """Returns scale * weights_i / sum(weights)."""
        total = sum(self.weights)
        return [self.scale * weight / total for weight in self.weights]


def neighbours(at: Mixture, step: float, *, weights: bool, scale: bool) -> list[Mixture]:
    """Returns the mixtures one move away.

    A move of the weights takes the share `step` from all adapters and gives it to one: (1 - step) * w + step * e_i. A move of
    the scale multiplies or divides it by 1 + step.

    Args:
        at: Where to start from; its weights have sum 1.
        step: In (0, 1).
        weights, scale: What may move.
    """
    found = []
    if weights and len(at.weights) > 1:
        for chosen in range(len(at.weights)):
            moved = tuple((1 - step) * weight + step * (place == chosen) for place, weight in enumerate(at.weights))
            found.append(Mixture(moved, at.scale))
    if scale:
        found += [Mixture(at.weights, at.scale * (1 + step)), Mixture(at.weights, at.scale / (1 + step))]
    return found


def least_error(
    start: Mixture, errors: Callable[[Sequence[Mixture]], Sequence[float]], *, weights: bool, scale: bool
) -> tuple[Mixture, float, float]:
    """Returns the best mixture found, its error, and that of `start`. Of equals the earlier one stays.

    Args:
        start: The first mixture; its weights have sum 1.
        errors: Their errors; asked once for each mixture, all moves from one place together. An error rate has finitely many
            values below any other, so that the search ends.
        weights, scale: What may move.
    """
    found = {start: errors([start])[0]}
    best = start
    for step in STEPS:
        while tried := neighbours(best, step, weights=weights, scale=scale):
            new = [mixture for mixture in dict.fromkeys(tried) if mixture not in found]
            found |= dict(zip(new, errors(new), strict=True)) if new else {}
            winner = min(tried, key=found.__getitem__)
            if not found[winner] < found[best]:
                break
            best = winner
    return best, found[best], found[start]
