"""What models heard, as HTML: a card for each model, with the words that differ marked by more than colour. Pure."""

from collections.abc import Sequence
from html import escape

from wfc_dist.data.languages import WHISPER_LANGUAGES
from wfc_dist.evaluation.alignment import Stretch
from wfc_dist.tryout.comparing import Difference, Heard

LEGEND = (
    '<p class="wfc-legend">Marks: <del>a word that is missing</del>, <ins>a word that is added</ins>, '
    "<mark><del>a word</del> <ins>and what stands in its place</ins></mark>. Words are compared without case and punctuation.</p>"
)
CSS = """
.wfc-cards { display: flex; flex-wrap: wrap; gap: 1rem; }
.wfc-card { flex: 1 1 18rem; min-width: 0; padding: 1rem; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--background-fill-secondary); color: var(--body-text-color); overflow-wrap: anywhere; }
.wfc-card h3 { margin: 0 0 .5rem; font-size: 1rem; font-weight: 600; }
.wfc-card h4 { margin: .75rem 0 .25rem; font-size: .875rem; font-weight: 600; }
.wfc-text { font-size: 1.125rem; margin: 0 0 .5rem; }
.wfc-facts { margin: 0; font-size: .875rem; }
.wfc-cards del, .wfc-legend del { text-decoration: line-through 2px; background: #f8d4d0; color: #5b1210; padding: 0 .15em; }
.wfc-cards ins, .wfc-legend ins { text-decoration: underline 2px; background: #cfe6fb; color: #0b3257; padding: 0 .15em; }
.wfc-cards mark, .wfc-legend mark { background: none; color: inherit; border: 1px dashed currentColor; border-radius: 4px;
  padding: .1em .2em; }
.wfc-error { border-left: 4px solid currentColor; padding: .25rem .75rem; font-weight: 600; color: var(--body-text-color); }
.wfc-legend, .wfc-memory { margin: .75rem 0 0; font-size: .875rem; color: var(--body-text-color); }
#clip time, #clip button:not(.selected), #clip button span { color: var(--body-text-color); }
.wfc-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""
_STATES = {"waiting": "waits for its turn", "loading": "is being loaded", "decoding": "is decoding"}


def page_part(heard: Sequence[Heard], memory: str = "") -> str:
    """Returns all cards, the legend where something is compared, and a line about the memory."""
    cards = "".join(_card(item) for item in heard)
    legend = LEGEND if any(item.difference for item in heard) else ""
    note = f'<p class="wfc-memory">{escape(memory)}</p>' if memory else ""
    return f'<div class="wfc-cards">{cards}</div>{legend}{note}'


def error_part(message: str) -> str:
    """Returns a message that a screen reader reads out at once."""
    return f'<p class="wfc-error" role="alert">{escape(message)}</p>'


def _card(heard: Heard) -> str:
    return f'<article class="wfc-card"><h3>{escape(heard.title)}</h3>{_inside(heard)}</article>'


def _inside(heard: Heard) -> str:
    if heard.state == "failed":
        return error_part(heard.message)
    said = heard.transcript
    if said is None:
        return f'<p class="wfc-facts">{_STATES[heard.state]}</p>'
    text = f'<p class="wfc-text" lang="{escape(said.language)}">{escape(said.text) or "(no words)"}</p>'
    language = WHISPER_LANGUAGES.get(said.language, said.language).title()
    loading = f"; loaded in {heard.loading_s:.1f} s" if heard.loading_s >= 0.05 else ""
    facts = [
        f"Language: {language}, {'detected' if heard.is_detected else 'chosen'}",
        f"Time: {heard.decoding_s:.1f} s for {said.duration_s:.1f} s of audio{loading}",
    ]
    lines = "<br>".join(map(escape, facts))
    return f'{text}<p class="wfc-facts">{lines}</p>{_compared(heard.difference, said.language) if heard.difference else ""}'


def _compared(found: Difference, language: str) -> str:
    title = f"<h4>Beside {escape(found.beside)}</h4>"
    rate = f"{found.metric.upper()} {100 * found.errors / found.length:.1f} %, " if found.is_reference and found.length else ""
    words = "word" if found.metric == "wer" else "token"
    kind = "error" if found.is_reference else "difference"
    many = "" if found.errors == 1 else "s"
    summary = f"{rate}{found.errors} {kind}{many} in {found.length} {words}{'' if found.length == 1 else 's'}"
    joint = " " if found.metric == "wer" else ""
    marked = joint.join(_marked(stretch, joint) for stretch in found.stretches)
    return f'{title}<p class="wfc-facts">{summary}</p><p lang="{escape(language)}">{marked}</p>'


def _marked(stretch: Stretch, joint: str) -> str:
    """Returns a stretch with its mark; of a substitution every token is a pair of its own."""
    if stretch.kind == "equal":
        return escape(joint.join(stretch.written))
    if stretch.kind == "delete":
        return _tagged("del", "missing", joint.join(stretch.said))
    if stretch.kind == "insert":
        return _tagged("ins", "added", joint.join(stretch.written))
    pairs = zip(stretch.said, stretch.written, strict=True)
    return joint.join(
        f"<mark>{_tagged('del', 'instead of', said)} {_tagged('ins', 'there is', written)}</mark>" for said, written in pairs
    )


def _tagged(tag: str, spoken: str, text: str) -> str:
    """Returns a marked text. Screen readers pass over the tags; they read the hidden word."""
    return f'<{tag}><span class="wfc-hidden">{spoken} </span>{escape(text)}</{tag}>'
