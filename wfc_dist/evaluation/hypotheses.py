"""Hypotheses: the texts that a model wrote for a test set, kept as jsonl, so that a set is decoded once and scored in any way."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Required, TypedDict

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation import metrics
from wfc_dist.evaluation.metrics import Counts, Score
from wfc_dist.evaluation.normalize import normalizer
from wfc_dist.storage import durable
from wfc_dist.storage.shapes import STRICT, Shape

SCHEMA_VERSION = 2
LOOP_RULE = 2
"""Version of the rule by which a packed window that loops is decoded again; it grows whenever the same options give another text.
With 2, a clip that loops when it is decoded alone is decoded once more, without repeats."""
_SELDOM = ("detected", "word_languages", "apart", "groups")  # a row leaves out those that are empty


class _Row(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    id: Required[str]
    parts: Required[list[str]]
    hypothesis: Required[str]
    language: Required[str]
    duration_s: Required[float]
    detected: str
    word_languages: list[list[str]]
    apart: bool
    groups: list[str]


_ROW = Shape(_Row)


@dataclass(frozen=True)
class Hypothesis:
    """One decoded clip, or one window of packed clips.

    Attributes:
        id: The clip's id; `first..last` for a window.
        parts: What was said in each clip, as in the data set, in the order of the window; one part for a clip alone.
        hypothesis: What the model wrote, unchanged.
        language: Whisper language code of the clips; the model decoded with this language, unless `detected` is set.
        duration_s: Seconds of speech, without the gaps of packing.
        detected: Language code that the model chose itself (`evaluate.language: detect`); for long audio that of the first piece.
        word_languages: For every part the languages of its words, where the data set says them (`word_langs`); () where not.
        apart: Whether the clips were decoded one by one, since the text of the window was a loop.
        groups: For every part the group that the data set puts it in (`group`): its speaker or recording; () where none has one.
    """

    id: str
    parts: tuple[str, ...]
    hypothesis: str
    language: str
    duration_s: float
    detected: str = ""
    word_languages: tuple[tuple[str, ...], ...] = ()
    apart: bool = False
    groups: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Hypothesis":
        """Returns the hypothesis of a JSON object (see `as_row`)."""
        marks = tuple(map(tuple, row.get("word_languages", ())))
        groups = tuple(row.get("groups", ()))
        return cls(**{**row, "parts": tuple(row["parts"]), "word_languages": marks, "groups": groups})

    def as_row(self) -> dict[str, Any]:
        """Returns the JSON object that is written; facts that the data set or the way of decoding does not give are left out."""
        return {key: value for key, value in asdict(self).items() if value or key not in _SELDOM}


def cache_key(model_sha256: str, fingerprint: str, evaluate: EvaluateConfig) -> dict[str, Any]:
    """Returns the header of a hypotheses file. The file is valid for exactly this model, this data and this way of decoding."""
    options = evaluate.decoding()
    if options.get("compression_ratio_threshold") is not None:
        options["loop_rule"] = LOOP_RULE
    return {
        "schema": SCHEMA_VERSION,
        "model_sha256": model_sha256,
        "fingerprint": fingerprint,
        "decoding": options,
        "decoding_sha256": durable.sha256_json(options),
    }


def write_hypotheses(path: Path, header: Mapping[str, Any], hypotheses: Sequence[Hypothesis]) -> None:
    """Writes a header line and one line per hypothesis, atomically: a file that is there is complete.

    The header gets a checksum of itself and of the lines after it.
    """
    rows = "".join(json.dumps(window.as_row(), ensure_ascii=False) + "\n" for window in hypotheses)
    first = dict(header) | {"num_hypotheses": len(hypotheses)}
    durable.write_text(path, json.dumps(first | {"checksum": _checksum(first, rows)}, ensure_ascii=False) + "\n" + rows)


def _checksum(header: Mapping[str, Any], rows: str) -> str:
    return hashlib.sha256(f"{durable.sha256_json(header)}\n{rows}".encode()).hexdigest()


def read_hypotheses(path: Path) -> tuple[dict[str, Any], list[Hypothesis]]:
    """Reads (header, hypotheses).

    Raises:
        InputError: There is no such file, or the file has another schema.
        IntegrityError: The lines are not those that were written.
    """
    try:
        # not splitlines(): a text may hold U+2028, which JSON leaves as it is
        first, _, after = durable.read_regular(path, "remove it and run again").decode().partition("\n")
        header, rows = json.loads(first), [json.loads(line) for line in after.split("\n")[:-1]]
        recorded = header.pop("checksum", None)  # files of earlier versions have none
        readable = header.get("schema") == SCHEMA_VERSION
        if readable and (fault := next(filter(None, map(_ROW.fault, rows)), "")):
            raise ValueError(fault)
        if readable and not all(row["parts"] for row in rows):
            raise ValueError("a window without a clip")
        hypotheses = [Hypothesis.from_row(row) for row in rows if readable]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); score the model again") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); remove it and run again") from error
    if not readable:
        raise InputError(f"{path} has schema {header.get('schema')}, this version reads {SCHEMA_VERSION}; remove it")
    if header.get("num_hypotheses") != len(hypotheses):
        raise IntegrityError(
            f"{path} has {len(hypotheses)} of {header.get('num_hypotheses')} hypotheses; remove it and run again"
        )
    if recorded not in (None, _checksum(header, after)):
        raise IntegrityError(f"{path} is damaged: its content does not have its checksum; remove it and run again")
    return header, hypotheses


def find_hypotheses(path: Path, header: Mapping[str, Any]) -> list[Hypothesis] | None:
    """Returns the hypotheses in `path` if they were decoded under this header (`cache_key`), else None."""
    if not path.is_file():
        return None
    stored, hypotheses = read_hypotheses(path)
    return hypotheses if all(stored.get(key) == value for key, value in header.items()) else None


def normalized(
    hypotheses: Sequence[Hypothesis], name: str, spelling: Mapping[str, str]
) -> tuple[list[tuple[str, ...]], list[str]]:  # fmt: skip
    """Returns (references clip by clip, hypotheses window by window), each text normalised as its language asks."""
    functions = {language: normalizer(name, language, spelling) for language in {window.language for window in hypotheses}}
    references = [tuple(map(functions[window.language], window.parts)) for window in hypotheses]
    return references, [functions[window.language](window.hypothesis) for window in hypotheses]


def count_hypotheses(hypotheses: Sequence[Hypothesis], evaluate: EvaluateConfig, spelling: Mapping[str, str]) -> Counts:
    """Returns errors per clip after normalisation. Raises InputError for a set without a reference token."""
    return metrics.count(*normalized(hypotheses, evaluate.normalizer, spelling), evaluate.metric, groups_of(hypotheses))


def groups_of(hypotheses: Sequence[Hypothesis]) -> list[tuple[str, ...]]:
    """Returns for every window the groups of its clips."""
    return [window.groups for window in hypotheses]


def score_hypotheses(hypotheses: Sequence[Hypothesis], evaluate: EvaluateConfig, spelling: Mapping[str, str]) -> Score:
    """Returns the score of one model on one set, as `evaluate` asks. Raises InputError for a set without a reference token."""
    return metrics.score(
        count_hypotheses(hypotheses, evaluate, spelling),
        metric=evaluate.metric, confidence=evaluate.confidence, intervals=evaluate.intervals,
    )  # fmt: skip
