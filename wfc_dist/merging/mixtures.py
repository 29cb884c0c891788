"""Finds the mixture of a round's adapters with the least error, by a pattern search over weights, scale, or both. Pure functions.

Related work also chooses the coefficients of a merge on held-out data: model soups (arXiv 2203.05482) include or exclude whole
models, and LoraHub (arXiv 2307.13269) searches without gradients. This search is that of Hooke and Jeeves (1961): try all moves
of the present size, take the best one, and use smaller moves if none helps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEPS = (0.5, 0.25, 0.125)
"""Sizes of the moves, in order of use."""


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
        at: The present mixture; its weights have sum 1.
        step: In (0, 1).
        weights, scale: Whether the weights and the scale may move.
    """
    mixtures = []
    if weights and len(at.weights) > 1:
        for chosen in range(len(at.weights)):
            moved = tuple((1 - step) * weight + step * (place == chosen) for place, weight in enumerate(at.weights))
            mixtures.append(Mixture(moved, at.scale))
    if scale:
        mixtures += [Mixture(at.weights, at.scale * (1 + step)), Mixture(at.weights, at.scale / (1 + step))]
    return mixtures


def least_error(
    start: Mixture, errors: Callable[[Sequence[Mixture]], Sequence[float]], *, weights: bool, scale: bool
) -> tuple[Mixture, float, float]:
    """Returns the best mixture, its error, and the error of `start`. Among equal errors, the earlier mixture wins.

    The search ends, because each step lowers the error, and an error rate has finitely many values.

    Args:
        start: The first mixture; its weights have sum 1.
        errors: Returns the error of each mixture. It is called once per mixture; all moves from one mixture come in one call.
        weights, scale: Whether the weights and the scale may move.
    """
    error_of = {start: errors([start])[0]}
    best = start
    for step in STEPS:
        while tried := neighbours(best, step, weights=weights, scale=scale):
            new = [mixture for mixture in dict.fromkeys(tried) if mixture not in error_of]
            error_of |= dict(zip(new, errors(new), strict=True)) if new else {}
            winner = min(tried, key=error_of.__getitem__)
            if not error_of[winner] < error_of[best]:
                break
            best = winner
    return best, error_of[best], error_of[start]
