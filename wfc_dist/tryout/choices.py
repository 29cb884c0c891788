"""The models that a page offers: every base and adapter of the runs that are named, and other models. Loads no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfc_dist.errors import InputError
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.storage.objects import is_url

if TYPE_CHECKING:
    from wfc_dist.evaluation.any_model import LoadedModel


@dataclass(frozen=True)
class Choice:
    """A model that can be picked.

    Attributes:
        title: Its name on the page, such as `base 0` or `round 1: es`; unique on the page.
        path: What `load_model` takes.
        run: The run it is part of; None for another model.
        base_index: The base that must be on this machine before it is loaded, if it is part of a run.
    """

    title: str
    path: str
    run: Run | None = None
    base_index: int = 0

    def load(self) -> "LoadedModel":
        """Returns the model, in memory. Fetches its files if its run is on object storage.

        Raises:
            InputError, IntegrityError, StorageError: See `load_model`; the files are damaged, or they cannot be fetched.
        """
        from wfc_dist.evaluation.any_model import load_model  # loads torch and Transformers
        from wfc_dist.runs.root import bring_base

        if self.run is not None:
            bring_base(self.run.mirror, self.base_index)
            if layout.adapter_place(Path(self.path)):
                self.run.mirror.fetch(Path(self.path))
        return load_model(self.path)


def list_choices(models: Sequence[str]) -> list[Choice]:
    """Returns what the page offers, in the order of `models`; of a run its bases, its interim bases, and then its adapters.

    Args:
        models: Run directories or URLs of runs, bases, adapters or hub models. Titles begin with the name of a run if there is
            more than one model.

    Raises:
        InputError: A URL or a folder that is no model, a run without a committed base, or the same model twice.
    """
    found: list[Choice] = []
    for name in models:
        found += _of_run(name, f"{name.rstrip('/').rpartition('/')[2]}: " if len(models) > 1 else "") or [_other(name)]
    titles = [choice.title for choice in found]
    for title in titles:
        if titles.count(title) > 1:
            raise InputError(f"two models would be called {title!r}; name each run and each model once")
    return found


def _of_run(name: str, before: str) -> list[Choice]:
    """Returns the models of a run; none if `name` is not a run."""
    if not is_url(name) and not layout.is_run(Path(name)):
        return []
    run = open_run(name)
    run.base()  # a run without a committed base has nothing to try
    return list(_models(run, before))


def _models(run: Run, before: str) -> Iterator[Choice]:
    for base in run.bases:
        title = f"{before}base {base.index}" + ("" if base.index else f" ({Path(run.config.base.model).name})")
        yield Choice(title, str(base.path), run, base.index)
    last = run.num_bases - 1
    for number, folder in [] if run.url else run.interims():
        yield Choice(f"{before}base {last} and {number} adapter{'s' if number > 1 else ''}", str(folder), run, last)
    for adapter in run.adapters():
        title = f"{before}round {adapter.round_index}: {adapter.dataset}"
        yield Choice(title, str(adapter.path), run, adapter.round_index - 1)


def _other(name: str) -> Choice:
    """Returns a folder or a hub model. The folder is checked when it is loaded; a name that cannot be one is refused here."""
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".") or len(name.split("/")) != 2):
        raise InputError(f"{name} is neither a run, nor a folder with a model, nor the name of a hub model; check the path")
    return Choice(name, name)
