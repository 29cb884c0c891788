"""The trackers by name: what each needs, and how it is made."""

import importlib.util
import os
from collections.abc import Callable

from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError
from wfc_dist.runs.layout import RunPaths
from wfc_dist.tracking.mlflow_tracker import URI, MlflowTracker
from wfc_dist.tracking.runs import Tracker
from wfc_dist.tracking.tensorboard_tracker import TensorBoardTracker
from wfc_dist.tracking.wandb_tracker import WandbTracker

EXTRAS = {"tensorboard": "track", "mlflow": "mlflow", "wandb": "wandb"}
"""Package of a tracker, which is its name, too -> the extra of wfc-dist that installs the package."""
_KINDS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker, "wandb": WandbTracker}


def require_trackers(config: Config) -> None:
    """Raises ConfigError where a tracker of `run.track` cannot be used on this machine."""
    for name in config.run.track:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"run.track: {name} is not installed here; pip install 'wfc-dist[{EXTRAS[name]}]'")
    if "mlflow" in config.run.track and config.run_url() and not os.environ.get(URI):
        raise ConfigError(f"run.track: mlflow cannot keep its files on object storage; set {URI} to a server's address")


def make_trackers(config: Config, paths: RunPaths) -> dict[str, Tracker]:
    """Returns name -> tracker for every name of `run.track`. Imports none of their packages."""
    return {name: _KINDS[name](paths.tracked(name)) for name in config.run.track}
