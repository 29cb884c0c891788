"""karcher: the mean direction of the updates on the sphere, as long as the updates are on average.

Source: the Riemannian centre of mass, Karcher 1977. Its iteration is that of the merge method karcher of mergekit, which takes
whole weights. Here the points are the updates.
"""

import math
from collections.abc import Sequence

from wfc_dist.merging.factors import AnyDelta, Factors, concatenated
from wfc_dist.merging.low_rank import inner_products, weighted_sum

_STEPS, _NEAR = 100, 1e-14  # the steps end at an angle of _NEAR; the angle falls by a factor at every step
_NO_DIRECTION = 1e-6
"""Length of the mean of unit vectors below which they have no mean direction."""


def karcher(factors: Sequence[Factors], weights: Sequence[float]) -> AnyDelta:
    """Returns (sum_i w_i ||delta_i||) * u, with the unit update u that has the least sum_i w_i angle(u, delta_i)^2.

    Orthogonal adapters of equal norm give an update of that norm, sqrt(K) times as long as their mean. Equal adapters, and one
    adapter, give that adapter. Zero updates count in the length and not in the direction. Updates that cancel each other have no
    mean direction, and the result is zero.
    """
    parts = coefficients(inner_products(factors), weights)
    return weighted_sum([(part, concatenated([item], [1.0])) for part, item in zip(parts, factors, strict=True)])


def coefficients(products: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Returns c with sum_i c_i delta_i the update of `karcher`. The bits of c_i do not depend on the order of the adapters.

    All steps stay in the span of the updates, so the inner products of the updates tell all that the steps need.

    Args:
        products: <delta_i, delta_j> of one module, K by K.
        weights: w_i > 0 with sum 1.
    """
    norms = [math.sqrt(max(row[place], 0.0)) for place, row in enumerate(products)]
    used = [place for place, norm in enumerate(norms) if norm > 0]
    total = math.fsum(weights[place] for place in used)
    shares = [weights[place] / total for place in used]
    cosines = [[1.0 if i == j else products[i][j] / (norms[i] * norms[j]) for j in used] for i in used]
    length = _length(cosines, shares)
    if not used or length < _NO_DIRECTION:
        return [0.0] * len(weights)
    unit = [share / length for share in shares]  # u = sum_i unit_i * delta_i / ||delta_i||
    for _ in range(_STEPS):
        dots = [max(-1.0, min(1.0, _dot(row, unit))) for row in cosines]
        pulls = [share * _angle_over_sine(dot) for share, dot in zip(shares, dots, strict=True)]
        back = math.fsum(pull * dot for pull, dot in zip(pulls, dots, strict=True))
        tangent = [pull - back * part for pull, part in zip(pulls, unit, strict=True)]
        angle = _length(cosines, tangent)
        if angle < _NEAR:
            break
        moved = [math.cos(angle) * part + math.sin(angle) / angle * step for part, step in zip(unit, tangent, strict=True)]
        length = _length(cosines, moved)
        unit = [part / length for part in moved]
    whole = math.fsum(weight * norm for weight, norm in zip(weights, norms, strict=True))
    found = {place: whole * part / norms[place] for place, part in zip(used, unit, strict=True)}
    return [found.get(place, 0.0) for place in range(len(weights))]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _length(cosines: Sequence[Sequence[float]], parts: Sequence[float]) -> float:
    """Returns the norm of sum_i parts_i * delta_i / ||delta_i||."""
    return math.sqrt(max(_dot([_dot(row, parts) for row in cosines], parts), 0.0))


def _angle_over_sine(cosine: float) -> float:
    """Returns angle / sin(angle): 1 for the angle 0, and 0 for two opposite directions, between which no way is the shortest."""
    angle = math.acos(cosine)
    if math.sin(angle) < _NO_DIRECTION:
        return 1.0 if cosine > 0 else 0.0
    return angle / math.sin(angle)
