"""The page itself, in Gradio: a clip, the models, the language and a reference go in; cards come out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from wfc_dist.data.languages import WHISPER_LANGUAGES
from wfc_dist.errors import InputError, WfcError
from wfc_dist.tryout import cards
from wfc_dist.tryout.choices import Choice
from wfc_dist.tryout.clips import MAX_MB, MAX_S, require_clip
from wfc_dist.tryout.comparing import hear
from wfc_dist.tryout.shelf import Shelf

logger = logging.getLogger(__name__)
_INTRO = f"""# Try the models
Record a clip or drop one: at most {MAX_S / 60:.0f} minutes and {MAX_MB} MB. It is decoded on this machine and removed when the
page ends. The model that is picked first is the one that the others are compared with, unless you say what is spoken."""


THEME = gr.themes.Default().set(  # where Gradio's own greys and orange have too little contrast
    body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
    input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300",
    button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800", button_primary_background_fill_hover_dark="*primary_800",
)  # fmt: skip


def make_page(list_models: Callable[[], Sequence[Choice]], shelf: Shelf[Any], uploads: Path) -> gr.Blocks:
    """Returns the page.

    Args:
        list_models: Returns the models to offer; called whenever the page is opened.
        shelf: Keeps the models.
        uploads: The folder that Gradio keeps clips in. The page takes files from nowhere else.
    """
    offered = {choice.title: choice for choice in list_models()}
    picked = list(dict.fromkeys([next(iter(offered)), _newest_base(list(offered.values()))]))

    def again() -> Any:
        try:
            offered.update({choice.title: choice for choice in list_models()})
        except WfcError as error:  # the run is gone; what is in memory can still be tried
            logger.warning("the models are not listed again: %s", error.message)
        return gr.Dropdown(choices=list(offered))

    def compare(clip: str | None, titles: list[str] | None, language: str, reference: str | None) -> Iterator[str]:
        try:
            path, _ = require_clip(clip, uploads)
            chosen = [offered[title] for title in titles or () if title in offered]
            if not chosen:
                raise InputError("there is no model; pick at least one")
            for heard in hear(chosen, path, language, (reference or "").strip(), shelf):
                yield cards.page_part(heard, _memory(shelf))
        except WfcError as error:
            yield cards.error_part(error.message)
        except Exception as error:  # a message, whatever happens
            logger.error("a clip failed with %s: %s", type(error).__name__, error)
            yield cards.error_part(f"this failed ({type(error).__name__}); the terminal of `wfc try` says more")

    with gr.Blocks(title="wfc try", analytics_enabled=False) as page:
        gr.Markdown(_INTRO)
        with gr.Row():
            clip = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Clip", buttons=[], elem_id="clip")
            with gr.Column():
                models = gr.Dropdown(list(offered), value=picked, multiselect=True, label="Models", elem_id="models")
                names = sorted((name.title(), code) for code, name in WHISPER_LANGUAGES.items())
                language = gr.Dropdown([("Detect", "auto"), *names], value="auto", label="Language", elem_id="language")
                reference = gr.Textbox(label="What is spoken (optional)", lines=2, max_length=20_000, elem_id="reference")
        button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
        texts = gr.HTML(elem_id="texts")
        page.load(again, None, models, show_progress="hidden", api_visibility="private")
        inputs = [clip, models, language, reference]
        button.click(compare, inputs, texts, show_progress="hidden", api_visibility="private", concurrency_limit=1)
    _close(page, uploads)
    return page.queue(max_size=20, default_concurrency_limit=1, api_open=False)


def _newest_base(choices: Sequence[Choice]) -> str:
    """Returns the newest base of the first run, or the second model where there is no run."""
    bases = [choice for choice in choices if choice.run is choices[0].run and "round " not in choice.title]
    return (bases[-1] if choices[0].run is not None else choices[min(1, len(choices) - 1)]).title


def _memory(shelf: Shelf[Any]) -> str:
    number = len(shelf.names)
    limit = f"the page keeps up to {shelf.limit_bytes / 1e9:.1f} GB, those used last"
    return f"In memory: {number} model{'' if number == 1 else 's'}, {shelf.held_bytes / 1e9:.2f} GB; {limit}."


def _close(page: gr.Blocks, uploads: Path) -> None:
    """Keeps the page from taking a path or an address for a clip: whatever a request names must have been uploaded.

    By itself a mounted page of Gradio copies any file that a request names to where it can be fetched from.
    """

    async def only_uploads(place: str | Path | None) -> str | None:
        if place is None or Path(place).resolve().is_relative_to(uploads.resolve()):
            return None if place is None else str(place)
        raise gr.Error("this file was not uploaded here", print_exception=False)

    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = only_uploads  # type: ignore[method-assign, assignment, union-attr]
