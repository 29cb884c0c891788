"""What the errors of any model are, in this process, without a run: `wfc evaluate --explain`."""

from pathlib import Path

from wfc_dist.config.schema import Config
from wfc_dist.evaluation.any_model import decoded
from wfc_dist.evaluation.explain import Explanation, explain


def explained(model: str | Path, config: Config, *, threads: int = 0) -> dict[str, Explanation]:
    """Returns what the errors of a model are: test set -> figures such as the error at a change of language.

    Arguments and errors are those of `evaluate`.
    """
    found = decoded(model, config, threads)
    return {
        key: explain(texts, config.evaluate.of(config.test_sets()[key]), found.spelling) for key, texts in found.texts.items()
    }
