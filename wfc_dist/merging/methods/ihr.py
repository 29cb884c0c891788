"""ihr: the mean, turned away from where the previous round's losses are curved (inverse-Hessian regularization).

Source: Vander Eeckt and Van hamme, arXiv 2601.14751: after fine-tuning, the update passes through a Kronecker-factored inverse
Hessian of the previous task; every layer then gets the norm back that its update had (the authors' supplementary code). Scale and
damping of the two factors are this project's choice.
"""

from collections.abc import Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import AnyDelta, Factors, at_norm, concatenated, squared_norm_of
from wfc_dist.merging.methods.mean import mean


def ihr(factors: Sequence[Factors], weights: Sequence[float], *, previous: Sequence[Curvature], damping: float = 1.0) -> AnyDelta:
    """Returns X ||delta|| / ||X|| with X = (I + G / g)^-1 @ delta @ (I + A / g)^-1, delta the mean of the updates, g the damping.

    The Hessian of the previous round's losses in the module's weight is taken for G x A (Kronecker): A is the mean over that
    round's adapters of the second moment of the module's inputs, G that of the gradients of its outputs, each over its mean
    eigenvalue. These are g (G + g I)^-1 and g (A + g I)^-1, the damped factors of K-FAC. The module's Frobenius norm is that of
    the mean: directions with curvature shrink, the others grow, and a large g gives the mean. Without a previous round (round 1)
    it is the mean.

    Args:
        previous: The module's curvature for each adapter of the previous round, with `inputs_II` and `outputs_OO`.
        damping: g, in units of the mean eigenvalue.
    """
    if not previous:
        return mean(factors, weights)
    delta = concatenated(factors, weights)
    inputs_II = _mean([item.inputs_II for item in previous if item.inputs_II is not None])
    outputs_OO = _mean([item.outputs_OO for item in previous if item.outputs_OO is not None])
    b_OR = torch.linalg.solve(_damped(outputs_OO, damping), delta.b_OR.double())
    a_RI = torch.linalg.solve(_damped(inputs_II, damping), delta.a_RI.double().T).T
    return at_norm(low_rank.update_of(b_OR, delta.coefficients_R, a_RI), squared_norm_of(delta))


def _mean(moments: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([moment.double() for moment in moments]).mean(0)


def _damped(moment: torch.Tensor, damping: float) -> torch.Tensor:
    """Returns I + moment / (damping * its mean eigenvalue); of a moment that is zero, I."""
    size = float(moment.diagonal().mean())
    identity = torch.eye(len(moment), dtype=torch.float64)
    return identity + moment / (damping * size) if size > 0 else identity
