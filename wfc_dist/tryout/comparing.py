"""What several models hear in one clip, one after the other, and how their words differ."""

import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wfc_dist.data.features import WITHOUT_SPACES
from wfc_dist.errors import WfcError
from wfc_dist.evaluation.alignment import Stretch, align
from wfc_dist.evaluation.metrics import TOKENIZERS, count_part
from wfc_dist.evaluation.normalize import normalizer, spelling_table
from wfc_dist.evaluation.transcribing import transcribe
from wfc_dist.evaluation.transcripts import Transcript
from wfc_dist.tryout.choices import Choice
from wfc_dist.tryout.shelf import Shelf

if TYPE_CHECKING:
    from wfc_dist.evaluation.any_model import LoadedModel

logger = logging.getLogger(__name__)
_spelling_table = functools.cache(spelling_table)  # the warning about a missing table comes once


@dataclass(frozen=True)
class Difference:
    """How the words of a text differ from those of another one, or of the reference, both normalised.

    Attributes:
        beside: What the text is compared with: `the reference`, or the title of a model.
        stretches: The alignment.
        errors: Substitutions, deletions and insertions.
        length: Tokens of the other text.
        metric: wer, or mer in languages without spaces between words.
        is_reference: Whether `beside` is the reference, so that errors / length is a rate.
    """

    beside: str
    stretches: Sequence[Stretch]
    errors: int
    length: int
    metric: str
    is_reference: bool


@dataclass(frozen=True)
class Heard:
    """What one model heard.

    Attributes:
        title: Of the model.
        state: `waiting`, `loading`, `decoding`, `done` or `failed`.
        transcript: Text, language and seconds of the clip, when it is done.
        is_detected: Whether the model found the language.
        loading_s, decoding_s: Seconds. Loading takes none where the model is in memory.
        message: Why it failed.
        folder: The checkpoint that the model, or its base, was loaded from.
        difference: From the reference or the first model; None where there is nothing to compare with.
    """

    title: str
    state: str = "waiting"
    transcript: Transcript | None = None
    is_detected: bool = False
    loading_s: float = 0.0
    decoding_s: float = 0.0
    message: str = ""
    folder: Path | None = None
    difference: Difference | None = None


def hear(
    choices: Sequence[Choice], clip: Path, language: str, reference: str, shelf: "Shelf[LoadedModel]"
) -> Iterator[list[Heard]]:
    """Yields what is known of every model, in the order of `choices`, whenever that has changed.

    A model that fails does not keep the others from being heard.

    Args:
        choices: The models. Without a reference the others are compared with the first one.
        clip: The audio file.
        language: Whisper's code; `auto` detects it.
        reference: What is said; "" where nobody says so.
        shelf: Keeps the models.
    """
    heard = [Heard(choice.title) for choice in choices]
    with shelf.lock:
        for number, choice in enumerate(choices):
            for now in _one(choice, clip, language, shelf):
                heard[number] = now
                yield list(heard)
            heard[number] = replace(heard[number], difference=_difference(heard, number, choice, reference))
            yield list(heard)


def _one(choice: Choice, clip: Path, language: str, shelf: "Shelf[LoadedModel]") -> Iterator[Heard]:
    heard = Heard(choice.title, "loading", is_detected=language == "auto")
    yield heard
    try:
        begun_s = time.monotonic()
        model = shelf.get(choice.path, choice.load)
        heard = replace(heard, state="decoding", loading_s=time.monotonic() - begun_s, folder=model.folder)
        yield heard
        begun_s = time.monotonic()
        (transcript,) = transcribe(model, [clip], language=language)
        yield replace(heard, state="done", transcript=transcript, decoding_s=time.monotonic() - begun_s)
    except WfcError as error:
        yield replace(heard, state="failed", message=error.message)
    except Exception as error:  # the page stays, whatever a model does
        logger.error("%s failed with %s: %s", choice.title, type(error).__name__, error)
        text = str(error).splitlines()[0] if str(error) else ""
        yield replace(heard, state="failed", message=f"the model failed ({type(error).__name__}: {text}); try another one")


def _difference(heard: Sequence[Heard], number: int, choice: Choice, reference: str) -> Difference | None:
    """Returns how the text of model `number` differs from the reference, or else from the text of the first model."""
    done, folder, first = heard[number].transcript, heard[number].folder, heard[0].transcript
    if done is None or folder is None:
        return None
    if not reference and (number == 0 or first is None):
        return None
    said, language, beside = (
        (first.text, first.language, heard[0].title) if first and not reference else (reference, done.language, "the reference")
    )
    rule = choice.run.config.evaluate.normalizer if choice.run is not None else "whisper"
    return difference(
        said, done.text, language, beside=beside, rule=rule, spelling=_spelling_table(folder), is_reference=bool(reference)
    )


def difference(
    said: str, written: str, language: str, *, beside: str, rule: str, spelling: Mapping[str, str], is_reference: bool
) -> Difference:  # fmt: skip
    """Returns how a text differs from another one, counted as the scores of test sets are.

    Args:
        said: The reference, or the text of another model.
        written: The text.
        language: Whisper's code; both texts are normalised as texts of this language.
        beside: What to call `said`.
        rule, spelling: See `normalize.normalizer`.
        is_reference: See `Difference`.
    """
    normalize = normalizer(rule, language, spelling)
    metric = "mer" if language in WITHOUT_SPACES else "wer"
    texts = normalize(said), normalize(written)
    counts = count_part([(texts[0],)], [texts[1]], metric)
    stretches = align(*map(TOKENIZERS[metric], texts))
    return Difference(beside, stretches, int(counts.errors.sum()), int(counts.lengths.sum()), metric, is_reference)
