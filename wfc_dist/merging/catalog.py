"""The list of merge methods with their options and inputs. Importing this module loads neither torch nor ray.

To add a method, add an entry here, a file with its function, and a row in docs/merging.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wfc_dist.errors import ConfigError, nearest

INPUTS = {
    "seed": "a seed of its own for every module",
    "past": "the updates of all earlier rounds, in order",
    "previous": "inputs and outputs of the curvature of the previous round's adapters (train.curvature)",
    "fisher": "the Fisher information of the adapters themselves (train.curvature)",
}
"""The inputs that a method can need besides factors and weights. `fisher` is a field of the factors; all others are keyword
parameters."""


@dataclass(frozen=True)
class Option:
    """A numeric option of a method.

    Attributes:
        default: The default value, which the parameter of the function has, too. An int means that the option is a whole number.
        range: The interval of allowed values, such as "(0, 1]".
        meaning: A few words for the help text.
    """

    default: float
    range: str
    meaning: str

    def holds(self, value: float) -> bool:
        """Returns whether `value` is in the range, and is a whole number if the option needs one."""
        low, high = (float(word) for word in self.range[1:-1].split(","))
        above = low <= value if self.range[0] == "[" else low < value
        below = value <= high if self.range[-1] == "]" else value < high
        return above and below and math.isfinite(value) and not (self.is_whole and value % 1)

    @property
    def is_whole(self) -> bool:
        """Returns whether the option takes only whole numbers."""
        return isinstance(self.default, int)


@dataclass(frozen=True)
class Entry:
    """A method: a summary, its source, its options by name, and the names of the `INPUTS` that it needs."""

    summary: str
    source: str
    options: Mapping[str, Option] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


METHODS = {
    "mean": Entry("the exact mean of the updates", "arXiv 2506.16574"),
    "factor_mean": Entry("A and B averaged apart, then multiplied", "arXiv 2506.16574"),
    "task_arithmetic": Entry(
        "lam times the sum of the updates", "arXiv 2212.04089", {"lam": Option(0.3, "[0, inf)", "factor of the sum")}
    ),
    "ties": Entry(
        "the largest entries, those of the elected sign, averaged", "arXiv 2306.01708",
        {"density": Option(0.2, "(0, 1]", "share of each update's entries kept, largest first")},
    ),
    "dare": Entry(
        "random entries dropped, the rest rescaled, then the mean", "arXiv 2311.03099",
        {"density": Option(0.5, "(0, 1]", "chance of an entry to be kept")}, ("seed",),
    ),
    "trimmed_mean": Entry(
        "the mean of each entry without its extremes", "arXiv 1803.01498",
        {"trim": Option(0.34, "[0, 0.5)", "share of the adapters cut at either end")},
    ),
    "tsv": Entry("task singular vectors made orthogonal to each other (TSV-M), summed", "arXiv 2412.00081"),
    "boosted_tsv": Entry(
        "TSV-M with each adapter's small singular values raised", "arXiv 2603.05354, boosting of arXiv 2506.16506",
        {"beta": Option(0.3, "(0, 1]", "singular values after this share of an adapter's sum are raised to the one there")},
    ),
    "model_stock": Entry("the mean, shortened by how much the updates agree", "arXiv 2403.19522"),
    "karcher": Entry("the mean direction on the sphere, at the mean length of the updates", "Karcher 1977, mergekit"),
    "lors": Entry(
        "lam times the sum of updates pruned to low rank plus a sparse rest", "arXiv 2502.17380",
        {"r": Option(7, "[1, inf)", "rank of the part of low rank"),
         "density": Option(0.2, "(0, 1]", "share of the rest's entries kept, largest first"),
         "lam": Option(0.2, "[0, inf)", "factor of the sum")},
    ),
    "svd": Entry(
        "the mean cut back to rank r", "Eckart and Young 1936", {"r": Option(32, "[1, inf)", "rank of the update")}
    ),
    "nesterov": Entry(
        "an outer step with momentum over rounds (DiLoCo)", "arXiv 2311.08105",
        {"lr": Option(0.7, "(0, inf)", "outer learning rate"), "momentum": Option(0.9, "[0, 1)", "kept of the last velocity")},
        ("past",),
    ),
    "fisher": Entry(
        "the mean weighted entry by entry with the Fisher information", "arXiv 2111.09832",
        {"floor": Option(1e-6, "(0, inf)", "least Fisher information of an entry, as a share of the module's mean"),
         "normalize": Option(0, "[0, 1]", "1 divides an adapter's information by its norm over all modules, as the source")},
        ("fisher",),
    ),
    "ihr": Entry(
        "the mean passed through an inverse Hessian of the previous round's data", "arXiv 2601.14751",
        {"damping": Option(1.0, "(0, inf)", "added to the curvature; more is nearer to the mean"),
         "relative": Option(1, "[0, 1]", "1 adds damping in units of the mean curvature, 0 as it is, as the source with 0.001")},
        ("previous",),
    ),
}  # fmt: skip


def entry(method: str) -> Entry:
    """Returns the entry of a method. Raises ConfigError for an unknown method, with the nearest name or all names."""
    if method not in METHODS:
        raise ConfigError(f"{method!r} is no merge method{nearest(method, METHODS)}")
    return METHODS[method]


def resolved(method: str, options: Mapping[str, float]) -> dict[str, float]:
    """Returns the value of every option of a method, whole numbers as int.

    Raises:
        ConfigError: The method or the option does not exist, or a value is out of range.
    """
    known = entry(method).options
    for name, value in options.items():
        if name not in known:
            hint = nearest(name, known) if known else "; it has none"
            raise ConfigError(f"{name!r} is no option of {method}{hint}")
        if not known[name].holds(value):
            kind = "a whole number" if known[name].is_whole else "a number"
            raise ConfigError(f"{name} of {method} is {value:g}; it must be {kind} in {known[name].range}")
    values = {name: options.get(name, option.default) for name, option in known.items()}
    return {name: int(value) if known[name].is_whole else float(value) for name, value in values.items()}


def check_step(method: str, norm: str, scale: float | str) -> None:
    """Raises ConfigError if a method needs its own earlier updates, and `norm` or `scale` changes these updates."""
    if "past" in entry(method).needs and (norm != "own" or scale != 1):
        raise ConfigError(f"{method} needs norm own and scale 1: it computes with its earlier updates; set options.lr instead")


def listing() -> str:
    """Returns a help text with one line for each method and option."""
    lines = []
    for name, item in METHODS.items():
        lines.append(f"{name}: {item.summary} [{item.source}]")
        lines += [f"    {option}={value.default:g} in {value.range}: {value.meaning}" for option, value in item.options.items()]
    return "\n".join(lines)
