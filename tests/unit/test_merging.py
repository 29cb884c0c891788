"""The registry and the configuration name the same methods."""

from typing import get_args

from wfc_dist.config import CentralizeConfig
from wfc_dist.merging import METHODS


def test_the_configuration_offers_what_the_registry_has() -> None:
    assert set(get_args(CentralizeConfig.model_fields["method"].annotation)) == set(METHODS)
