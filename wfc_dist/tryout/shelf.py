"""Keeps the models that were used last in memory, as many as there is room for."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Model = TypeVar("Model")


class Shelf(Generic[Model]):
    """Models that are loaded when they are first used. The model whose last use is longest ago leaves first.

    Args:
        limit_bytes: The most that all models hold together. One model alone may hold more.
        size_of: Returns the bytes of a model.

    Attributes:
        lock: To be held while a model is used, so that one model decodes at a time.
    """

    def __init__(self, limit_bytes: int, size_of: Callable[[Model], int]) -> None:
        self.limit_bytes, self._size_of = limit_bytes, size_of
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.lock = threading.RLock()

    def get(self, key: str, load: Callable[[], Model]) -> Model:
        """Returns the model `key`, loaded by `load` unless it is here. Models leave before another one is loaded.

        The new model is taken to be as large as the largest one that was ever here.
        """
        with self.lock:
            if key not in self._models:
                self._make_room(max(self._sizes.values(), default=0))
                self._models[key] = load()
                self._sizes[key] = self._size_of(self._models[key])
                self._make_room(0)
            self._models.move_to_end(key)
            return self._models[key]

    def _make_room(self, more_bytes: int) -> None:
        spare = 0 if more_bytes else 1  # the newest model stays
        while len(self._models) > spare and self.held_bytes + more_bytes > self.limit_bytes:
            self._models.popitem(last=False)

    @property
    def names(self) -> list[str]:
        """Returns the models that are here; the last one was used last."""
        return list(self._models)

    @property
    def held_bytes(self) -> int:
        """Returns the bytes of all models that are here."""
        return sum(self._sizes[name] for name in self._models)
