"""Makes a first configuration of corpora that were found: every value with the reason for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist.config.commented import commented
from wfc_dist.config.loading import parse
from wfc_dist.config.training import LoraConfig, TrainConfig
from wfc_dist.coordinator.machine import Machine, model_size, windows_that_fit
from wfc_dist.coordinator.plan import PACKED_WINDOW_S
from wfc_dist.data.detection.look import Corpus
from wfc_dist.data.detection.names import language_name, safe_name, unique_names
from wfc_dist.errors import InputError
from wfc_dist.runs.layout import is_reserved

USUAL_MODEL = "openai/whisper-small"
_SHORT_S = 15.0
_WINDOWS_A_STEP = 16
_MOST_STEPS, _MOST_STEPS_ON_CPUS = 4000, 200
_UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
_MOST_NAME = 40


@dataclass
class Proposal:
    """A configuration to be written.

    Attributes:
        tree: As `parse` takes it.
        corpora: Name of a data set -> what was found.
        reasons: Path of a key -> why it has its value.
        behind: Path of a block -> comments at its end.
    """

    tree: dict[str, Any]
    corpora: dict[str, Corpus]
    reasons: dict[str, str] = field(default_factory=dict)
    behind: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.tree["run"]["name"])

    def text(self) -> str:
        """Returns the configuration as YAML with comments."""
        head = (
            "Written by `wfc init` from what it found. Keys that are not here have their defaults: `wfc config show FILE`. "
            "`wfc config docs KEY` says what a key takes. Relative paths start from the folder in which wfc is called."
        )
        return commented(self.tree, self.reasons, head, self.behind)


def propose(
    corpora: Sequence[Corpus], machine: Machine, *, model: str = "", name: str = "", root: Path | None = None
) -> Proposal:
    """Returns a configuration of one round over all corpora; those with only a test split are protected sets.

    Args:
        corpora: What was found.
        machine: What there is to compute with.
        model: The base; by default USUAL_MODEL.
        name: Of the run; by default made of the names of the data sets.
        root: The folder of the base, where it is on this machine.

    Raises:
        InputError: No corpus has a train split.
        ConfigError: The name or the model is none.
    """
    named = dict(zip(_free_names(corpora), corpora, strict=True))
    trained = {key: corpus for key, corpus in named.items() if "train" in corpus.splits}
    tested = {key: corpus for key, corpus in named.items() if key not in trained and "test" in corpus.splits}
    if not trained:
        found = ", ".join(f"{key} has {' and '.join(corpus.splits)}" for key, corpus in named.items())
        raise InputError(f"there is nothing to train on: {found}; name a source with a train split too")
    proposal = Proposal({}, named)
    run_name = name or _run_name(list(trained))
    proposal.tree = {
        "run": {"name": run_name, "dir": "runs"},
        "base": {"model": model or USUAL_MODEL},
        "datasets": {key: _dataset(proposal, f"datasets.{key}", corpus) for key, corpus in trained.items()},
        "rounds": [list(trained)],
    }
    _explain_head(proposal, has_model=bool(model), num_sets=len(trained))
    train = _training(proposal, list(trained.values()), machine, root)
    proposal.tree["lora"] = {key: getattr(LoraConfig(), key) for key in ("r", "alpha")}
    proposal.tree["train"] = train
    proposal.tree["cluster"] = _cluster(proposal, machine, len(trained))
    if tested:
        sets = {key: _dataset(proposal, f"evaluate.protected.{key}", corpus) for key, corpus in tested.items()}
        proposal.tree["evaluate"] = {"protected": sets}
        proposal.reasons["evaluate.protected"] = "these have only a test split"
    parse(proposal.tree, "the proposed configuration")
    return proposal


def _free_names(corpora: Sequence[Corpus]) -> list[str]:
    return [f"set-{name}" if is_reserved(name) else name for name in unique_names([corpus.words for corpus in corpora])]


def _run_name(names: Sequence[str]) -> str:
    """Returns a name for the run, whose folder is not there yet."""
    joined = "-".join(names)
    wanted = joined if len(joined) <= _MOST_NAME else f"{names[0][:_MOST_NAME]}-and-{len(names) - 1}-more"
    wanted, number, free = safe_name(wanted), 2, safe_name(wanted)
    while (Path("runs") / free).exists():
        number, free = number + 1, f"{wanted}-{number}"
    return free


def _dataset(proposal: Proposal, path: str, corpus: Corpus) -> dict[str, Any]:
    """Returns the block of a data set, and writes down its reasons."""
    block = {"source": corpus.block["source"]} | {
        key: value for key, value in corpus.block.items() if key not in ("source", "splits")
    }
    languages = {code for facts in corpus.facts.values() for code in facts.languages}
    lines: list[str] = []
    if corpus.language:
        block["language"] = corpus.language
        proposal.reasons[f"{path}.language"] = f"{language_name(corpus.language)}, by {corpus.language_by}"
        languages = {corpus.language}
    elif corpus.is_silent:
        lines.append("language: es   # SET THIS: Whisper's code of the language; neither the rows nor the folder's name say it")
    block["splits"] = corpus.splits
    if languages and languages <= _UNSPACED:
        block["metric"] = "cer"
        proposal.reasons[f"{path}.metric"] = "there are no spaces between words"
    proposal.reasons |= {f"{path}.{key}": why for key, why in _reasons(corpus).items()}
    if "train" in corpus.splits:
        if "test" not in corpus.splits:
            lines.append(
                "No test split was found. Without one no base is scored on this set: hold clips back, add test to splits."
            )
        if "dev" not in corpus.splits:
            lines.append("No dev split was found. train.early_stopping needs one: hold clips back, add dev to splits.")
    lines += [f"Not read: {place}" for place in corpus.passed_over[:5]]
    lines += corpus.notes
    lines += [f"SET THIS: {todo}" for todo in corpus.todo if not todo.startswith("language")]
    proposal.behind[path] = lines
    return block


def _reasons(corpus: Corpus) -> dict[str, str]:
    hours = {split: facts.hours for split, facts in corpus.facts.items()}
    told = [
        f"{split} {facts.num_clips} clips{_shown_hours(hours[split])}"
        for split, facts in corpus.facts.items()
        if facts.num_clips is not None
    ]
    found = {"splits": ", ".join(told)}
    if "[" in corpus.splits.get("test", ""):
        found["splits"] += "; the source has one split, whose last rows are held back, whoever speaks in them"
    if corpus.block.get("time_unit") == "ms":
        found["time_unit"] = "by the true lengths of the recordings"
    if "strip_markup" in corpus.block.get("text", {}):
        found["text"] = "the texts have Whisper's tokens, or alternatives in curly brackets"
    return found


def _shown_hours(hours: float | None) -> str:
    return "" if hours is None else f", {hours:.2f} h"


def _explain_head(proposal: Proposal, *, has_model: bool, num_sets: int) -> None:
    reasons = proposal.reasons
    reasons["run.dir"] = f"runs/{proposal.name} has all that the run writes"
    if not has_model:
        reasons["base.model"] = "a size that learns on one GPU; --model names another"
    reasons["rounds"] = (
        "one round, whose adapters are averaged; [[a], [b]] learns one after the other"
        if num_sets > 1
        else "one round of one data set"
    )


def _training(proposal: Proposal, corpora: Sequence[Corpus], machine: Machine, root: Path | None) -> dict[str, Any]:
    """Returns the block `train`: windows by the memory, steps by the hours of speech."""
    has_gpu = bool(machine.gpu_bytes)
    precision = ("bf16" if has_gpu else "auto") if machine.has_bf16 else "fp32"
    mean_s, known_hours = _mean_length_s(corpora), _mean_hours(corpora)
    hours = known_hours or 1.0
    packing = mean_s is not None and mean_s < _SHORT_S
    windows = _windows(corpora, packing=packing)
    batch, why = _batch(proposal, machine, precision, root)
    target = max(1, min(_WINDOWS_A_STEP if has_gpu else 4, 2 ** int(math.log2(max(windows, 1)))))
    batch = min(batch, target)
    accumulation = max(1, target // batch)
    passes = 5 if hours < 10 else 3 if hours < 100 else 1
    wanted = max(10, math.ceil(passes * windows / (batch * accumulation)))
    most = _MOST_STEPS if has_gpu else _MOST_STEPS_ON_CPUS
    steps = min(wanted, most)
    train: dict[str, Any] = {"max_steps": steps, "lr": TrainConfig().lr, "warmup_steps": 0.1, "batch_size": batch,
                             "gradient_accumulation": accumulation, "precision": precision, "packing": packing,
                             "checkpoint_every": max(1, min(steps // 5, 200))}  # fmt: skip
    seen = steps * batch * accumulation / max(windows, 1)
    has = "a GPU that has it" if has_gpu else "bf16 here, the CPU has it; fp32 on one that has not"
    has_not = "a GPU without bf16" if has_gpu else "no GPU is here, and the CPU has no bf16"
    cap = f"; {'no GPU is here, which' if not has_gpu else 'this'} keeps it at {most}" if wanted > most else ""
    reasons = {
        "max_steps": (f"about {seen:.1f} passes over a set's {hours:.2f} h" if known_hours else "the hours are not known") + cap,
        "warmup_steps": "a share of max_steps",
        "batch_size": why,
        "gradient_accumulation": f"{batch * accumulation} windows a step",
        "precision": has if machine.has_bf16 else has_not,
        "packing": f"clips have {mean_s:.1f} s on average" if mean_s else "their lengths are not known",
    }
    if all("dev" in corpus.splits for corpus in corpora):
        train |= {"eval_every": max(1, steps // 10), "early_stopping": {"metric": "loss", "patience": 5}}
        reasons["early_stopping"] = "every data set has a dev split"
    proposal.reasons |= {f"train.{key}": reason for key, reason in reasons.items()}
    return train


def _mean_hours(corpora: Sequence[Corpus]) -> float | None:
    known = [hours for corpus in corpora if (hours := corpus.facts["train"].hours) is not None]
    return sum(known) / len(known) if known else None


def _mean_length_s(corpora: Sequence[Corpus]) -> float | None:
    known = [mean_s for corpus in corpora if (mean_s := corpus.facts["train"].mean_s)]
    return sum(known) / len(known) if known else None


def _windows(corpora: Sequence[Corpus], *, packing: bool) -> int:
    """Returns about how many windows one pass over a data set has, in the mean."""
    if packing:
        return max(1, round((_mean_hours(corpora) or 1.0) * 3600 / PACKED_WINDOW_S))
    counted = [num for corpus in corpora if (num := corpus.facts["train"].num_clips)]
    return max(1, round(sum(counted) / len(counted))) if counted else 1000


def _batch(proposal: Proposal, machine: Machine, precision: str, root: Path | None) -> tuple[int, str]:
    """Returns (windows in a micro-batch, why)."""
    if not machine.gpu_bytes:
        return 1, "a CPU gains nothing by more"
    model = str(proposal.tree["base"]["model"])
    size = model_size(model, root)
    if size is None:
        return 2, f"the size of {model} is not known here; raise it while it fits the GPU"
    lora, train = LoraConfig(), TrainConfig.model_validate({"precision": precision})
    matrices = 2 * (size.encoder_layers + 2 * size.decoder_layers)  # q and v of each attention
    memory = min(machine.gpu_bytes)
    fits = windows_that_fit(size, train, matrices * 2 * lora.r * size.width, memory)
    if fits < 1:
        return 1, f"more than fits by the estimate into a GPU of {memory / 1e9:.0f} GB; `wfc plan` says more"
    return 2 ** int(math.log2(fits)), f"fits a GPU of {memory / 1e9:.0f} GB by an estimate"


def _cluster(proposal: Proposal, machine: Machine, num_sets: int) -> dict[str, Any]:
    cores, gpus = machine.num_cores, len(machine.gpu_bytes)
    if gpus:
        each = max(1, min(4, cores // gpus))
        proposal.reasons["cluster.gpus_per_worker"] = f"this machine has {gpus}"
        return {"backend": "ray", "gpus_per_worker": 1, "cpus_per_worker": each, "threads_per_worker": each}
    proposal.reasons["cluster.backend"] = "in_process trains one data set after the other in this process"
    proposal.reasons["cluster.threads_per_worker"] = f"this machine has {cores} cores"
    if num_sets == 1 or cores < 8:
        return {"backend": "in_process", "threads_per_worker": cores}
    each = max(2, cores // num_sets)
    proposal.reasons["cluster.backend"] = "ray trains data sets side by side"
    return {"backend": "ray", "cpus_per_worker": each, "threads_per_worker": each}
