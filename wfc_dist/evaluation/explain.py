"""Explains an error rate of one model on one set: computes all figures that docs/metrics.md lists under "What the errors are"."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.evaluation import metrics
from wfc_dist.evaluation.hallucinations import Loop, find_hallucinations
from wfc_dist.evaluation.hypotheses import Hypothesis, groups_of, normalized
from wfc_dist.evaluation.normalize import normalizer
from wfc_dist.evaluation.ratios import Clips, Ratio, ratios
from wfc_dist.evaluation.scripts import count_foreign
from wfc_dist.evaluation.switching import Languages, count_switched, languages_by_marks, languages_by_script

FORMULAS = {
    "rate": "(S + D + I) / N",
    "substitutions": "S / N",
    "deletions": "D / N",
    "insertions": "I / N",
    "hallucinated_clips": "clips of windows with a hallucination / clips; a window has one if more than max(3, half the "
    "reference) tokens are inserted, or if 1 to 6 tokens are repeated at least 4 times in a row and are not so in the reference",
    "hallucinated_insertions": "I of those clips / N of all: the part of the rate that is invented text",
    "rate_without_hallucinations": "(S + D + I) / N of the other clips",
    "decoded_apart": "clips of packed windows that were decoded clip by clip, since the window's text was a loop / clips",
    "foreign_script": "written tokens in none of the scripts of the clip and its language / written tokens with letters",
    "language_errors": "clips whose language the model took for another / clips (evaluate.language: detect)",
    "wer_switched": "word errors / words, of the words before and after each change of language",
    "wer_rest": "word errors / words, of the other words of the same clips",
    "wer_gap": "wer_switched - wer_rest",
    "mer_switched": "as wer_switched, in mixed tokens",
    "mer_rest": "as wer_rest, in mixed tokens",
    "mer_gap": "mer_switched - mer_rest",
}
_GAPS = {f"{metric}_gap": (f"{metric}_switched", f"{metric}_rest") for metric in ("wer", "mer")}
_LANGUAGE = "language "  # before a language's code, to keep its rate apart from the figures


@dataclass(frozen=True)
class Explanation:
    """What the errors of one model on one set are.

    Attributes:
        figures: The keys of FORMULAS that the set gives -> value and interval.
        languages: Language -> rate of its clips, the language with most clips first; empty for a set of one language.
        longest_loop: The longest loop that no reference has; None without one.
        scripts: Foreign script -> tokens written in that script, most first.
        num_clips: Clips of the set.
        num_switched, num_rest: Words at a change of language, and the other words of those clips.
    """

    figures: Mapping[str, Ratio]
    languages: Mapping[str, Ratio]
    longest_loop: Loop | None
    scripts: Mapping[str, int]
    num_clips: int
    num_switched: int
    num_rest: int

    def as_tree(self) -> dict[str, Any]:
        """Returns the explanation for JSON."""
        return {
            "figures": {name: ratio._asdict() for name, ratio in self.figures.items()},
            "languages": {name: ratio._asdict() for name, ratio in self.languages.items()},
            "longest_loop": self.longest_loop and self.longest_loop._asdict(),
            "scripts": dict(self.scripts), "num_clips": self.num_clips,
            "num_switched": self.num_switched, "num_rest": self.num_rest,
        }  # fmt: skip


def explain(
    hypotheses: Sequence[Hypothesis], evaluate: EvaluateConfig, spelling: Mapping[str, str],
    counts: metrics.Counts | None = None,
) -> Explanation:  # fmt: skip
    """Returns what the errors of one model on one set are. Raises InputError for a set without a reference token.

    Args:
        hypotheses: What the model wrote for the set.
        evaluate: Metric and normaliser; confidence of the intervals.
        spelling: See `normalize.spelling_table`.
        counts: The errors of every clip, where they are counted already.
    """
    texts = normalized(hypotheses, evaluate.normalizer, spelling)
    counts = metrics.count(*texts, evaluate.metric, groups_of(hypotheses)) if counts is None else counts
    hallucinations = find_hallucinations(*texts)
    foreign, written, scripts = count_foreign(*texts, [window.language for window in hypotheses])
    parts = _error_parts(counts, hallucinations.clips) | {"foreign_script": (foreign, written)}
    if any(window.detected for window in hypotheses):
        wrong = [window.detected != window.language for window in hypotheses for _ in window.parts]
        parts["language_errors"] = (np.array(wrong, dtype=np.int64), np.ones_like(counts.lengths))
    if any(window.apart for window in hypotheses):
        apart = [window.apart for window in hypotheses for _ in window.parts]
        parts["decoded_apart"] = (np.array(apart, dtype=np.int64), np.ones_like(counts.lengths))
    switch_parts = _switch_parts(hypotheses, texts, evaluate, spelling)
    by_language = _language_parts(hypotheses, counts)
    measured = ratios(
        parts | switch_parts | by_language, counts.units, _GAPS,
        confidence=evaluate.confidence, intervals=evaluate.intervals,
    )  # fmt: skip
    return Explanation(
        {name: measured[name] for name in FORMULAS if name in measured},
        {name.removeprefix(_LANGUAGE): measured[name] for name in by_language if name in measured},
        hallucinations.longest, dict(scripts.most_common()), len(counts.lengths),
        *(int(switch_parts[name][1].sum()) for name in ("wer_switched", "wer_rest")),
    )  # fmt: skip


_Parts = dict[str, tuple[Clips, Clips]]


def _error_parts(counts: metrics.Counts, hallucinated: Clips) -> _Parts:
    kinds = {name: getattr(counts, name) for name in ("substitutions", "deletions", "insertions")}
    others = 1 - hallucinated
    return {
        "rate": (counts.errors, counts.lengths),
        **{name: (numbers, counts.lengths) for name, numbers in kinds.items()},
        "hallucinated_clips": (hallucinated, np.ones_like(hallucinated)),
        "hallucinated_insertions": (counts.insertions * hallucinated, counts.lengths),
        "rate_without_hallucinations": (counts.errors * others, counts.lengths * others),
    }


def _switch_parts(
    hypotheses: Sequence[Hypothesis], texts: tuple[list[tuple[str, ...]], list[str]], evaluate: EvaluateConfig,
    spelling: Mapping[str, str],
) -> _Parts:  # fmt: skip
    parts: _Parts = {}
    languages = {window.language for window in hypotheses}
    functions = {language: normalizer(evaluate.normalizer, language, spelling) for language in languages}
    for metric in ("wer", "mer"):
        spoken = [
            _spoken(window, clips, functions[window.language], metrics.TOKENIZERS[metric])
            for window, clips in zip(hypotheses, texts[0], strict=True)
        ]
        counts = count_switched(*texts, spoken, metric)
        parts[f"{metric}_switched"] = (counts.switched_errors, counts.switched_lengths)
        parts[f"{metric}_rest"] = (counts.rest_errors, counts.rest_lengths)
    return parts


def _spoken(
    window: Hypothesis, clips: Sequence[str], normalize: Callable[[str], str], tokenize: Callable[[str], list[str]]
) -> list[list[Languages] | None]:  # fmt: skip
    """Returns the languages of the tokens of every clip: as its words are marked, or else by script."""
    marks = window.word_languages or ((),) * len(clips)
    return [
        languages_by_marks(part, of_part, normalize, tokenize) if of_part else languages_by_script(tokenize(clip))
        for part, of_part, clip in zip(window.parts, marks, clips, strict=True)
    ]


def _language_parts(hypotheses: Sequence[Hypothesis], counts: metrics.Counts) -> _Parts:
    """Returns errors and tokens of the clips of every language, most clips first; nothing for a set of one."""
    languages = [window.language for window in hypotheses for _ in window.parts]
    counted = Counter(languages).most_common()
    masks = {name: np.array([language == name for language in languages], dtype=np.int64) for name, _ in counted}
    if len(masks) < 2:
        return {}
    return {f"{_LANGUAGE}{name}": (counts.errors * mask, counts.lengths * mask) for name, mask in masks.items()}


def in_words(explanation: Explanation) -> str:
    """Returns one sentence, in percent of the reference tokens: the parts of the rate, and the rate without hallucinations."""
    figures = explanation.figures
    shares = ", ".join(f"{100 * figures[name].value:.1f} {name}" for name in ("substitutions", "deletions", "insertions"))
    said = f"{100 * figures['rate'].value:.1f} % = {shares}"
    if not figures["hallucinated_clips"].value:
        return f"{said}; no hallucination"
    said += f"; {100 * figures['hallucinated_clips'].value:.0f} % of the clips have a hallucination"
    if "rate_without_hallucinations" in figures:
        said += f", without them it is {100 * figures['rate_without_hallucinations'].value:.1f} %"
    if explanation.longest_loop:
        said += f"; the longest loop is {shortened(explanation.longest_loop)}"
    return said


def shortened(loop: Loop, length: int = 40) -> str:
    """Returns a loop for a table, `thank you x 12`; a long n-gram loses its end."""
    text = " ".join(loop.ngram)
    return f'"{text if len(text) <= length else text[: length - 3] + "..."}" x {loop.times}'
