"""The systems that can be compared, each as what the system changes in a run. Loads neither torch nor ray.

A system is a way to lay the data sets out in rounds, and settings. To add one, add a line to PRESETS (see docs/compare.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wfc_dist.config.training import TrainConfig

Layout = Literal["none", "alone", "every", "joint"]
JOINT = "joint"  # name of the data set made of all
LINEAR = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]  # every linear layer of Whisper but the tied output


@dataclass(frozen=True)
class Preset:
    """One kind of system.

    Attributes:
        about: What it is, and its source.
        layout: `none` trains nothing; `alone` trains each data set on the root in a run of its own; `every` takes K data sets a
            round; `joint` takes all as one data set.
        every: K; None leaves it to the system's `every`.
        settings: `key.path` -> value of the run's configuration.
    """

    about: str
    layout: Layout
    every: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


PRESETS = {
    "untouched": Preset("the root, theta_0", "none"),
    "individual": Preset("one adapter, theta_0 + delta_i, for each data set, as the model for everything", "alone"),
    "sequential": Preset("fine-tuning after fine-tuning, LoRA merged after each set", "every", 1),
    "full": Preset("fine-tuning of every linear layer itself, without LoRA, after each set", "every", 1,
                   {"lora.variant": "full", "lora.dropout": 0.0, "lora.target_modules": LINEAR, "train.lr": 1e-4}),
    "fta": Preset("weight averaging, theta_t = theta_(t-1) + (theta_FT - theta_(t-1)) / (t + 1); arXiv 2210.15282", "every", 1,
                  {"centralize.scale": "inverse_task"}),
    "running_average": Preset("online running average after every SGD step; arXiv 2306.10860", "every", 1,
                              {"train.optimizer": "sgd", "train.schedule": "inverse_step", "train.lr": 1.0,
                               "train.warmup_steps": 0, "train.weight_decay": 0.0}),
    "lwf": Preset("learning without forgetting: distillation from the base; arXiv 1606.09282", "every", 1,
                  {"train.distillation": {}}),
    "ewc": Preset("elastic weight consolidation, online; arXiv 1612.00796, 1805.06370", "every", 1,
                  {"train.curvature": "fisher", "train.ewc": {}}),
    "bayesian": Preset("Bayesian low-rank factors with a prior near zero; arXiv 2510.18723", "every", 1, {"lora.prior": {}}),
    "replay": Preset("experience replay: a tenth of the clips of all earlier sets (keeps old data)", "every", 1,
                     {"train.replay": 0.1}),
    "joint": Preset("all data sets at once, as many steps as all of them together: the upper bound", "joint"),
    "centralize": Preset("factorization and centralization of K data sets a round; arXiv 2506.16574", "every"),
}  # fmt: skip


def lay_out(layout: Layout, datasets: Sequence[str], every: int) -> list[tuple[str, list[list[str]]]]:
    """Returns the runs of a system: (suffix of its name, rounds)."""
    if layout == "none":
        return []
    if layout == "alone":
        return [(f"-{name}", [[name]]) for name in datasets]
    if layout == "joint":
        return [("", [[JOINT]])]
    return [("", [list(datasets[start : start + every]) for start in range(0, len(datasets), every)])]


def joint_settings(tree: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of `joint`: the data set made of all, and the steps that all would have been trained together."""
    parts = {name: dict(tree["datasets"][name]) for name in datasets}
    for part in parts.values():
        part["splits"] = {split: name for split, name in (part.get("splits") or {}).items() if split != "test"}
    train = TrainConfig.model_validate(tree.get("train") or {})
    longer = {"train.max_steps": len(datasets) * train.max_steps, "train.warmup_steps": len(datasets) * train.warmup_steps}
    splits = {split: split for split in ("train", "dev") if any(split in part["splits"] for part in parts.values())}
    first, *others = [part.get("metric") for part in parts.values()]
    metric = first if others.count(first) == len(others) else None  # dev splits that differ are counted with evaluate.metric
    return {f"datasets.{JOINT}": {"format": "mix", "parts": parts, "splits": splits, "metric": metric}} | longer
