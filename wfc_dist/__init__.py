"""wfc_dist: continual learning of speech models by weight factorization and centralization, on clusters.

    from wfc_dist import load_config, run, open_run, evaluate

    config = load_config("configs/demo.yaml", ["train.lr=1e-4"])
    base = run(config)                             # or go on with it
    scores = evaluate(base.path, config)           # test set -> Score

Names are imported when they are asked for: `import wfc_dist` loads no other library. The `wfc` command calls these functions.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `as` tells type checkers that a name is exported
    from wfc_dist.centralize.offline import average as average
    from wfc_dist.centralize.offline import merge as merge
    from wfc_dist.centralize.offline import rebuild as rebuild
    from wfc_dist.config.loading import load_config as load_config
    from wfc_dist.config.schema import Config as Config
    from wfc_dist.coordinator.run import run as run
    from wfc_dist.errors import ConfigError as ConfigError
    from wfc_dist.errors import GangFailedError as GangFailedError
    from wfc_dist.errors import InputError as InputError
    from wfc_dist.errors import IntegrityError as IntegrityError
    from wfc_dist.errors import Interrupted as Interrupted
    from wfc_dist.errors import RunLockedError as RunLockedError
    from wfc_dist.errors import StorageError as StorageError
    from wfc_dist.errors import TrainingError as TrainingError
    from wfc_dist.errors import WfcError as WfcError
    from wfc_dist.evaluation.any_model import LoadedModel as LoadedModel
    from wfc_dist.evaluation.any_model import evaluate as evaluate
    from wfc_dist.evaluation.any_model import load_model as load_model
    from wfc_dist.evaluation.metrics import Score as Score
    from wfc_dist.evaluation.transcribing import transcribe as transcribe
    from wfc_dist.evaluation.transcripts import Segment as Segment
    from wfc_dist.evaluation.transcripts import Transcript as Transcript
    from wfc_dist.evaluation.transcripts import Word as Word
    from wfc_dist.exporting.models import Exported as Exported
    from wfc_dist.exporting.models import export as export
    from wfc_dist.merging.factors import Factors as Factors
    from wfc_dist.merging.recipe import Recipe as Recipe
    from wfc_dist.merging.recipe import merged_update as merged_update
    from wfc_dist.rounds import Adapter as Adapter
    from wfc_dist.rounds import Base as Base
    from wfc_dist.runs.handle import Run as Run
    from wfc_dist.runs.handle import open_run as open_run
    from wfc_dist.weights.base_chain import read_delta as read_delta
    from wfc_dist.weights.peft_folder import read_factors as read_factors

__version__ = "0.1.0"
_HOMES = {
    "centralize.offline": "average merge rebuild",
    "config.loading": "load_config",
    "config.schema": "Config",
    "coordinator.run": "run",
    "errors": "ConfigError GangFailedError InputError IntegrityError Interrupted RunLockedError StorageError TrainingError"
    " WfcError",
    "evaluation.any_model": "LoadedModel evaluate load_model",
    "evaluation.metrics": "Score",
    "evaluation.transcribing": "transcribe",
    "evaluation.transcripts": "Segment Transcript Word",
    "exporting.models": "Exported export",
    "merging.factors": "Factors",
    "merging.recipe": "Recipe merged_update",
    "rounds": "Adapter Base",
    "runs.handle": "Run open_run",
    "weights.base_chain": "read_delta",
    "weights.peft_folder": "read_factors",
}
_HOME_OF = dict(sorted((name, module) for module, names in _HOMES.items() for name in names.split()))
__all__ = list(_HOME_OF)


def __getattr__(name: str) -> object:
    """Imports a public name when it is asked for the first time (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'wfc_dist' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"wfc_dist.{_HOME_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
