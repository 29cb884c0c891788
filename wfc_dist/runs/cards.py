"""Model cards: what the README.md of a base or an adapter says. Text from facts: the same facts give the same bytes.

A card holds nothing that names a machine: no absolute path, no host, no time.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import Config
from wfc_dist.runs.root_model import Root

TASK = "automatic-speech-recognition"
_TAGS = (TASK, "whisper", "continual-learning", "wfc_dist")


@dataclass(frozen=True)
class Learned:
    """One adapter that is part of a base, or stands on one.

    Attributes:
        round_index: Its round (1-based).
        dataset: The data set it was trained on.
        sha256: Of its tensors.
        weight: Its share of the average; None for an adapter on its own.
        hours: Hours of speech in the training split; None where the adapter is gone.
        licences: Of its data, see `licences.licences_of`; "" stands for one that is not known.
    """

    round_index: int
    dataset: str
    sha256: str
    weight: float | None = None
    hours: float | None = None
    licences: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Use:
    """Who loads a model: the name of the library on the hub, and lines of Markdown that say how."""

    library: str
    lines: tuple[str, ...]


TRANSFORMERS = Use(
    "transformers",
    (
        "```python",
        "from transformers import WhisperForConditionalGeneration, WhisperProcessor",
        "",
        'model = WhisperForConditionalGeneration.from_pretrained("this folder")',
        'processor = WhisperProcessor.from_pretrained("this folder")',
        "```",
    ),
)


def adapter_card(config: Config, root: Root, learned: Learned, base_sha256: str, facts: Mapping[str, Any]) -> str:
    """Returns the card of one adapter.

    Args:
        config: Of the run.
        root: The root model.
        learned: The adapter.
        base_sha256: The base it was trained against.
        facts: Of its training: steps, best_step, dev_loss, dev_error.
    """
    index, lora, train = learned.round_index - 1, config.lora, config.train
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    measured = [
        f"{label} {facts[key]:.4f}" for key, label in (("dev_loss", "dev loss"), ("dev_error", "dev error")) if facts.get(key)
    ]
    training = [
        f"- Factors: {lora.described()}, on `{targets}`.",
        f"- Steps: {facts.get('steps', '?')}, the best one is {facts.get('best_step', facts.get('steps', '?'))}."
        + (f" At that step: {', '.join(measured)}." if measured else ""),
        f"- Optimizer: {train.optimizer}, learning rate {train.lr:g}, schedule {train.schedule}, "
        f"batch {train.batch_size} x {train.gradient_accumulation}, {train.precision}.",
    ]
    base_name = f"base {index}" + (f", which is `{root.name}`" if index == 0 else " of the run")
    load = f'base = WhisperForConditionalGeneration.from_pretrained("{_base_to_load(root, index)}")'
    body = [
        f"# Adapter {learned.dataset} of round {learned.round_index} (run {config.run.name})",
        "",
        f"A LoRA adapter for Whisper, trained on one data set against {base_name}. A round of wfc_dist trains",
        "one adapter for each of its data sets in parallel, averages their updates and merges the average into the next base.",
        *_section("Training", training),
        *_datasets(config, [learned]),
        *_section("Lineage", [
            f"- Base: {index}, sha256 of its tensors `{base_sha256}`.",
            *([f"- It was trained against another base, `{facts['trained_against']}`."] if "trained_against" in facts else []),
            f"- Root: `{root.name}`{_at(root)}, sha256 of its tensors `{root.sha256}`.",
            f"- This adapter: sha256 of its tensors `{learned.sha256}`.",
        ]),
        *_section("How to load", [
            "```python",
            "from peft import PeftModel",
            "from transformers import WhisperForConditionalGeneration",
            "",
            load,
            'model = PeftModel.from_pretrained(base, "this folder")',
            "```",
            "",
            "Load it on the base it was trained against, and on no other one. `task_type` is empty with a reason: PEFT's classes",
            "for a task pass `input_ids`, which Whisper does not take.",
        ]),
        *_intended_use(),
    ]  # fmt: skip
    meta = _metadata(config, root, [learned], library="peft", relation="adapter", tags=["lora"])
    return _card(meta, body)


def _base_to_load(root: Root, index: int) -> str:
    return f"RUN/base-{index:04d}" if index else root.hub_id if root.is_on_hub else f"folder of {root.name}"


def base_card(
    config: Config,
    root: Root,
    chain: Sequence[Mapping[str, Any]],
    learned: Sequence[Learned],
    *,
    more: Sequence[str] = (),
    results: Sequence[Mapping[str, Any]] = (),
    use: Use | None = None,
    num_pending: int = 0,
) -> str:
    """Returns the card of a base.

    Args:
        config: Of the run.
        root: The root model.
        chain: Facts of bases 1 to N, in order: sha256, method, scale, weights, adapters, parent_sha256. Empty for base 0.
        learned: The adapters in it, in order of rounds and data sets.
        more: Lines of further sections, such as the error table.
        results: Entries of the metadata's `model-index`.
        use: Who loads it, and how; by default Transformers.
        num_pending: Of an interim base: how many adapters of the last round are in it.
    """
    index, use = len(chain), use or TRANSFORMERS
    body = [
        f"# {f'Interim base of {num_pending} adapters after base {index - 1}' if num_pending else f'Base {index}'} "
        f"of the run {config.run.name}",
        "",
        *(_what_a_base_is(config, root, chain) if chain else [f"The root model `{root.name}`{_at(root)}; nothing is added."]),
        *_datasets(config, learned),
        *more,
        *_lineage(root, chain, learned),
        *_section("How to load", use.lines),
        *_intended_use(),
    ]  # fmt: skip
    return _card(_metadata(config, root, learned, library=use.library, relation="finetune", results=results), body)


def _what_a_base_is(config: Config, root: Root, chain: Sequence[Mapping[str, Any]]) -> list[str]:
    last, count = chain[-1], len(chain)
    rounds = f"{count} round" + ("s" if count > 1 else "")
    options = "".join(f", {key} {value:g}" for key, value in last.get("options", {}).items())
    return [
        f"`{root.name}`{_at(root)} after {rounds} of continual learning by weight factorization and centralization",
        "(arXiv 2506.16574). Each data set of a round trains one LoRA adapter against the same frozen base. The updates are",
        "averaged, and the average is merged into the base: `base_t = cast(root + update_1 + ... + update_t)`.",
        *_section("Method", [
            f"- Merge method of the last round: `{last.get('method', '?')}`{options}, scale {last.get('scale', 1):g}.",
            f"- Adapters: {config.lora.described()}.",
            f"- Norm of the last update: {last['update_norm']:.6g}." if "update_norm" in last else "- Norm of the last update: ?",
            f"- Data type: {config.base.dtype} (auto is the root's own).",
            *(
                f"- Base {index} was made without {dataset}, whose training failed."
                for index, facts in enumerate(chain, start=1) for dataset in facts.get("missing", {})
            ),
            *(
                f"- Base {index} merges {dataset}, whose adapter was trained against another base, `{against}`."
                for index, facts in enumerate(chain, start=1) for dataset, against in facts.get("grafted", {}).items()
            ),
        ]),
    ]  # fmt: skip


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines]


def _at(root: Root) -> str:
    return f" (revision `{root.revision}`)" if root.revision else ""


def _datasets(config: Config, learned: Sequence[Learned]) -> list[str]:
    if not learned:
        return []
    rows = ["| round | data set | language | hours | source | licence |", "|---|---|---|---|---|---|"]
    for item in learned:
        data = config.datasets.get(item.dataset)
        hours = "?" if item.hours is None else f"{item.hours:.3g}"
        language = (data.language if data else None) or "of each row"
        licences = ", ".join(licence or "unknown" for licence in item.licences)
        rows.append(f"| {item.round_index} | {item.dataset} | {language} | {hours} | {_source(data)} | {licences} |")
    return _section("Data", [*rows, "", _licence_note(learned)])


def _licence_note(learned: Sequence[Learned]) -> str:
    unknown = dict.fromkeys(item.dataset for item in learned if "" in item.licences)
    if unknown:
        return f"Licences that are not recorded: of {', '.join(unknown)}. Ask the owners before you hand this model on."
    return "The licences are those that the run's configuration or the cards of the data sets name. They may bind this model."


def _source(data: DatasetConfig | None) -> str:
    if data is None:
        return "?"
    if data.format == "hub":
        subset = f", {data.subset}" if data.subset else ""
        return f"[{data.source}](https://huggingface.co/datasets/{data.source}){subset}"
    return f"a mix of {', '.join(data.parts)}" if data.parts else f"local ({data.format})"


def _lineage(root: Root, chain: Sequence[Mapping[str, Any]], learned: Sequence[Learned]) -> list[str]:
    rows = ["| base | sha256 of its tensors | adapters (weight, sha256 of their tensors) |", "|---|---|---|"]
    rows.append(f"| 0 | `{root.sha256}` | root: {root.name} |")
    for index, facts in enumerate(chain, start=1):
        parts = [
            f"{item.dataset} ({'?' if item.weight is None else format(item.weight, '.4f')}, `{item.sha256}`)"
            for item in learned
            if item.round_index == index
        ]
        rows.append(f"| {index} | `{facts['sha256']}` | {', '.join(parts)} |")
    return _section("Lineage", rows)


def _intended_use() -> list[str]:
    return _section("Intended use", [
        "Transcription of speech in the languages above, and research on continual learning. A text that nobody has checked is",
        "no ground for a decision about a person. Whisper may write words that nobody said, above all in silence and noise.",
    ])  # fmt: skip


def _metadata(
    config: Config,
    root: Root,
    learned: Sequence[Learned],
    *,
    library: str,
    relation: str,
    tags: Sequence[str] = (),
    results: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    data = [part for item in learned if item.dataset in config.datasets for part in _with_parts(config.datasets[item.dataset])]
    languages = dict.fromkeys(item.language for item in data if item.language and re.fullmatch(r"[a-z]{2,3}", item.language))
    meta: dict[str, Any] = {}
    if root.hub_id:
        meta |= {"base_model": root.hub_id, "base_model_relation": relation}
    if languages:
        meta["language"] = ["jv" if code == "jw" else code for code in languages]  # Whisper's own name of Javanese
    if root.licence:
        meta["license"] = root.licence
    meta |= {"library_name": library, "pipeline_tag": TASK, "tags": [*_TAGS, *tags]}
    if hub_sets := list(dict.fromkeys(item.source for item in data if item.format == "hub")):
        meta["datasets"] = hub_sets
    if results:
        meta["model-index"] = [{"name": config.run.name, "results": list(results)}]
    return meta


def _with_parts(data: DatasetConfig) -> list[DatasetConfig]:
    return [data, *(found for part in data.parts.values() for found in _with_parts(part))]


def _card(meta: Mapping[str, Any], body: Sequence[str]) -> str:
    return f"---\n{yaml.safe_dump(dict(meta), sort_keys=False, allow_unicode=True)}---\n\n" + "\n".join(body) + "\n"
