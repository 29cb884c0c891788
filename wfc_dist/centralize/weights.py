"""The weights and the scale of a round, from the configuration."""

from collections.abc import Sequence

from wfc_dist.config.centralize import CentralizeConfig
from wfc_dist.merging.mixtures import Mixture
from wfc_dist.rounds import Adapter


def asked_for(settings: CentralizeConfig, round_index: int, adapters: Sequence[Adapter]) -> Mixture:
    """Returns the weights, not normalized, and the scale of a round (1-based). Fitted values start uniform and at scale 1."""
    weights, scale = settings.weights, settings.scale
    if scale == "inverse_task":
        scale = 1 / (round_index + 1)
    if isinstance(weights, dict):
        given = tuple(weights[adapter.dataset] for adapter in adapters)
    else:
        given = tuple(adapter.hours if weights == "hours" else 1.0 for adapter in adapters)
    return Mixture(given, 1.0 if scale == "fitted" else float(scale))
