"""Results of a data set that come once the base of its round was made without it (`centralize.quorum`)."""

from typing import Literal

from wfc_dist.errors import IntegrityError
from wfc_dist.runs.layout import RunPaths, read_base


def is_late(paths: RunPaths, round_index: int, dataset: str) -> bool:
    """Returns whether the base of a round (1-based) is committed, and was made without a data set."""
    settled = read_base(paths.run_dir, round_index)
    return settled is not None and dataset not in settled[1].get("adapters", (dataset,))


def is_awaited(paths: RunPaths, late: Literal["never", "next_round"], round_index: int, dataset: str) -> bool:
    """Returns whether a late result may still come and be of use; true where a base is damaged, since in doubt all is kept."""
    try:
        return is_late(paths, round_index, dataset) and no_use_of(paths, late, round_index, dataset) is None
    except IntegrityError:  # damage is seen to once the run is open
        return True


def no_use_of(paths: RunPaths, late: Literal["never", "next_round"], round_index: int, dataset: str) -> str | None:
    """Returns why no base will merge a late result; None if a later round folds it in.

    Args:
        paths: The paths of the run.
        late: The value of `centralize.late`.
        round_index: The round (1-based) that the result is late for.
        dataset: Its data set.
    """
    without = f"base {round_index} was made without {dataset} and stays so"
    if late == "never":
        return f"{without}; name {dataset} in a later round, or set centralize.late: next_round"
    for index in range(round_index + 1, paths.last_base() + 1):
        if not is_late(paths, index, dataset):
            return f"{without}, and base {index} has learned {dataset} since"
    return None
