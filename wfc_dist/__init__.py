"""wfc_dist: continual learning of speech models by weight factorization and centralization, on clusters.

    from wfc_dist import load_config, run, open_run, evaluate

    config = load_config("configs/demo.yaml", ["train.lr=1e-4"])
    base = run(config)                             # or go on with it
    scores = evaluate(base.path, config)           # test set -> Score

Names are imported when they are asked for: `import wfc_dist` loads no other library. The `wfc` command calls these functions.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfc_dist.centralize.offline import average, merge, rebuild
    from wfc_dist.config.loading import load_config
    from wfc_dist.config.schema import Config
    from wfc_dist.coordinator.run import run
    from wfc_dist.errors import (
        ConfigError,
        GangFailedError,
        InputError,
        IntegrityError,
        Interrupted,
        RunLockedError,
        StorageError,
        TrainingError,
        WfcError,
    )
    from wfc_dist.evaluation.any_model import LoadedModel, evaluate, load_model, transcribe
    from wfc_dist.evaluation.metrics import Score
    from wfc_dist.merging.factors import Factors
    from wfc_dist.merging.recipe import Recipe, merged_update
    from wfc_dist.rounds import Adapter, Base
    from wfc_dist.runs.handle import Run, open_run
    from wfc_dist.weights.base_chain import read_delta
    from wfc_dist.weights.peft_folder import read_factors

__version__ = "0.1.0"
_HOMES = {
    "centralize.offline": "average merge rebuild",
    "config.loading": "load_config",
    "config.schema": "Config",
    "coordinator.run": "run",
    "errors": "ConfigError GangFailedError InputError IntegrityError Interrupted RunLockedError StorageError TrainingError"
    " WfcError",
    "evaluation.any_model": "LoadedModel evaluate load_model transcribe",
    "evaluation.metrics": "Score",
    "merging.factors": "Factors",
    "merging.recipe": "Recipe merged_update",
    "rounds": "Adapter Base",
    "runs.handle": "Run open_run",
    "weights.base_chain": "read_delta",
    "weights.peft_folder": "read_factors",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = [
    "Adapter",
    "Base",
    "Config",
    "ConfigError",
    "Factors",
    "GangFailedError",
    "InputError",
    "IntegrityError",
    "Interrupted",
    "LoadedModel",
    "Recipe",
    "Run",
    "RunLockedError",
    "Score",
    "StorageError",
    "TrainingError",
    "WfcError",
    "average",
    "evaluate",
    "load_config",
    "load_model",
    "merge",
    "merged_update",
    "open_run",
    "read_delta",
    "read_factors",
    "rebuild",
    "run",
    "transcribe",
]


def __getattr__(name: str) -> object:
    """Imports a public name when it is asked for the first time (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'wfc_dist' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"wfc_dist.{_HOME_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
