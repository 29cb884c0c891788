"""What is shown: texts, facts, and words marked by tags and text decoration; nothing of a text becomes HTML."""

from pathlib import Path

import pytest

from wfc_dist.evaluation.transcripts import Transcript
from wfc_dist.tryout.cards import CSS, error_part, page_part
from wfc_dist.tryout.comparing import Difference, Heard, difference

SAID = "The cat sat on the mat."


def compared(said: str, written: str, language: str = "en", *, rule: str = "whisper", is_reference: bool = True) -> Difference:
    return difference(said, written, language, beside="base 0", rule=rule, spelling={}, is_reference=is_reference)


def heard(text: str, language: str = "en", **more: object) -> Heard:
    done = Transcript(Path("a.wav"), text, language, 2.0)
    return Heard("base 1", "done", done, is_detected=True, decoding_s=1.234, **more)  # type: ignore[arg-type]


def without_hidden(html: str) -> str:
    for word in ("missing", "added", "instead of", "there is"):
        html = html.replace(f'<span class="wfc-hidden">{word} </span>', "")
    return html


@pytest.mark.parametrize(
    ("written", "marked", "summary"),
    [
        ("the bat sat on the mat", "the <mark><del>cat</del> <ins>bat</ins></mark> sat on the mat", "16.7 %, 1 error in 6 words"),
        ("The cat sat on mat", "the cat sat on <del>the</del> mat", "WER 16.7 %, 1 error in 6 words"),
        ("The fat cat sat on the mat!", "the <ins>fat</ins> cat sat on the mat", "WER 16.7 %, 1 error in 6 words"),
        ("THE CAT SAT ON THE MAT", "the cat sat on the mat", "WER 0.0 %, 0 errors in 6 words"),
        ("", "<del>the cat sat on the mat</del>", "WER 100.0 %, 6 errors in 6 words"),
    ],
)
def test_words_that_differ_are_marked_and_counted(written: str, marked: str, summary: str) -> None:
    html = without_hidden(page_part([heard(written, difference=compared(SAID, written))]))
    assert f'<p lang="en">{marked}</p>' in html and summary in html and "Beside base 0" in html


def test_every_word_of_a_longer_substitution_has_a_mark_of_its_own() -> None:
    html = without_hidden(page_part([heard("q c d", difference=compared("q x y", "q c d"))]))
    assert "<mark><del>x</del> <ins>c</ins></mark> <mark><del>y</del> <ins>d</ins></mark>" in html


def test_beside_a_model_there_are_differences_and_no_rate() -> None:
    html = page_part([heard("q b", difference=compared("q c", "q b", is_reference=False))])
    assert "1 difference in 2 words" in html and "WER" not in html


def test_a_language_without_spaces_is_compared_by_its_characters() -> None:
    found = compared("\u4f60\u597d\u5417", "\u4f60\u4eec\u597d\u5417", "zh")
    html = without_hidden(page_part([heard("\u4f60\u4eec\u597d\u5417", "zh", difference=found)]))
    assert "MER 33.3 %, 1 error in 3 tokens" in html and "\u4f60<ins>\u4eec</ins>\u597d\u5417" in html
    assert "Language: Chinese, detected" in html


def test_a_reference_without_a_word_gives_no_rate() -> None:
    html = page_part([heard("cat", difference=compared("...", "cat", rule="paper"))])
    assert "1 error in 0 words" in html and "WER" not in html


def test_the_facts_of_a_text() -> None:
    html = page_part([heard("Hola", "es", loading_s=2.04)], "In memory: 1 model")
    assert '<p class="wfc-text" lang="es">Hola</p>' in html and "In memory: 1 model" in html and "Marks:" not in html
    assert "Language: Spanish, detected" in html and "Time: 1.2 s for 2.0 s of audio; loaded in 2.0 s" in html


@pytest.mark.parametrize(
    ("state", "shown"), [("waiting", "waits for its turn"), ("loading", "is being loaded"), ("decoding", "is")]
)
def test_a_model_that_is_not_done_says_so(state: str, shown: str) -> None:
    assert shown in page_part([Heard("base 1", state)])


def test_a_failure_is_an_alert_beside_the_other_texts() -> None:
    html = page_part([heard("Hola"), Heard("base 2", "failed", message="<no> such model")])
    assert "Hola" in html and '<p class="wfc-error" role="alert">&lt;no&gt; such model</p>' in html
    assert error_part("a & b").endswith(">a &amp; b</p>")


def test_nothing_that_was_said_or_typed_becomes_html() -> None:
    evil = "<img src=x onerror=alert(1)>"
    difference_of_evil = compared(evil, f"a {evil}", rule="none")
    shown = Heard(evil, "done", Transcript(Path("a"), evil, '"><b>', 1.0), difference=Difference(evil, [], 0, 1, "wer", True))
    html = page_part([shown, heard("a", difference=difference_of_evil)])
    assert "<img" not in html and "<b>" not in html and "&lt;img" in html


def test_marks_differ_by_more_than_colour() -> None:
    assert "text-decoration: line-through" in CSS and "text-decoration: underline" in CSS and "border: 1px dashed" in CSS
