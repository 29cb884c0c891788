"""Learning without forgetting (Li and Hoiem, arXiv 1606.09282): the frozen base is the teacher of its adapter.

    loss = (1 - weight) * cross-entropy + weight * T^2 * KL(teacher || student)

Both terms are means over the same label tokens. T^2 keeps the gradient of the divergence as large as it is for T = 1.
Letters of shapes: B windows, L labels, V vocabulary.
"""

import torch
from torch.nn import functional

from wfc_dist.data.batching import IGNORED


def divergence(teacher_BLV: torch.Tensor, student_BLV: torch.Tensor, labels_BL: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over the label tokens of every window.

    Args:
        teacher_BLV, student_BLV: Logits, any floating dtype; computed on in float32.
        labels_BL: -100 where nothing is learned.
        temperature: T.

    Returns:
        (B,) float32.
    """
    teacher, student = (functional.log_softmax(logits.float() / temperature, dim=-1) for logits in (teacher_BLV, student_BLV))
    kl_BL = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * kl_BL.masked_fill(labels_BL == IGNORED, 0.0).sum(dim=1)
