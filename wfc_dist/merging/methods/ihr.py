"""ihr: inverse-Hessian regularization. It shrinks the mean in directions in which the losses of the previous round are curved.

Source: Vander Eeckt and Van hamme, arXiv 2601.14751. After fine-tuning, the update is multiplied by a Kronecker-factored inverse
Hessian of the previous task. Then every layer is scaled back to the norm of its update (the authors' supplementary code). That
code adds 1e-3 to both factors, which it measures with the summed loss of an utterance: `relative` 0 and `damping` 0.001 here, and
`train.curvature_loss: sum`. The default damping is a choice of this project.
"""

from collections.abc import Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import AnyDelta, Factors, at_norm, concatenated, squared_norm_of
from wfc_dist.merging.methods.mean import mean


def ihr(
    factors: Sequence[Factors],
    weights: Sequence[float],
    *,
    previous: Sequence[Curvature],
    damping: float = 1.0,
    relative: int = 1,
) -> AnyDelta:
    """Returns X ||delta|| / ||X|| with X = (I + G / g)^-1 @ delta @ (I + A / g)^-1, delta the mean of the updates, g the damping.

    The Hessian of the previous round's losses with respect to the module's weight is approximated by G x A (Kronecker). A is the
    mean, over the adapters of that round, of the second moment of the module's inputs. G is the mean of the second moment of the
    gradients of its outputs. Each is divided by its mean eigenvalue. The two inverses are g (G + g I)^-1 and g (A + g I)^-1, the
    damped factors of K-FAC, up to a factor. The Frobenius norm of the module is that of the mean, so directions with curvature
    shrink and the others grow. A large g gives the mean. In round 1, without a previous round, the result is the mean.

    Args:
        previous: The module's curvature for each adapter of the previous round, with `inputs_II` and `outputs_OO`.
        damping: g, in units of the mean eigenvalue.
        relative: 0 takes A, G and g as they are, without the division by the mean eigenvalue. The sizes of A and G, which depend
            on the module and on the loss, then say how far g damps.
    """
    if not previous:
        return mean(factors, weights)
    delta = concatenated(factors, weights)
    inputs_II = _mean([item.inputs_II for item in previous if item.inputs_II is not None])
    outputs_OO = _mean([item.outputs_OO for item in previous if item.outputs_OO is not None])
    b_OR = torch.linalg.solve(_damped(outputs_OO, damping, relative), delta.b_OR.double())
    a_RI = torch.linalg.solve(_damped(inputs_II, damping, relative), delta.a_RI.double().T).T
    return at_norm(low_rank.update_of(b_OR, delta.coefficients_R, a_RI), squared_norm_of(delta))


def _mean(moments: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([moment.double() for moment in moments]).mean(0)


def _damped(moment: torch.Tensor, damping: float, relative: int) -> torch.Tensor:
    """Returns I + moment / (damping * mean eigenvalue of moment, or * 1); I if the moment is zero."""
    size = float(moment.diagonal().mean()) if relative else 1.0
    identity = torch.eye(len(moment), dtype=torch.float64)
    return identity + moment / (damping * size) if size > 0 else identity
