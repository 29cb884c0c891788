"""How transcripts are cleaned: the block `text` of a data set. Loads neither torch nor ray."""

import re
import unicodedata
from typing import Literal

from pydantic import Field, field_validator

from wfc_dist.config.training import Strict
from wfc_dist.errors import nearest

MARKUP = {
    "angle": "<...>: every tag; the words between two tags stay, so that <foreign> hola </foreign> becomes hola",
    "double_round": "((...)): the four marks only, so that the doubtful ((hello)) becomes hello",
    "round": "(...), with the words in it",
    "square": "[...], with the words in it",
    "curly": "{...}, with the words in it",
    "round_marks": "( and ): the marks only, so that ama(zing) becomes amazing",
    "square_marks": "[ and ]: the marks only",
    "curly_marks": "{ and }: the marks only",
    "partial_words": "words that begin or end with one hyphen, such as wo- and -rd",
}
"""Kind of markup that `strip_markup` deletes -> what that is. Full-width forms of the brackets count as brackets."""
_ELEMENT = re.compile(r"<[A-Za-z][A-Za-z0-9_.:-]*>")


class TextConfig(Strict):
    """What is done to every transcript, in this order: `unicode`, `replace`, `strip_markup`.

    Without any setting, characters that nobody sees and that stand for no sound are deleted: byte order marks, zero-width spaces,
    soft hyphens, marks of the writing direction, control characters. Line breaks and tabs become a space. A text without these
    that is in NFC, as nearly all texts are, keeps every byte. The audit counts the clips that cleaning changes.
    """

    unicode: Literal["nfc", "nfkc", "keep"] = "nfc"
    """`nfc` composes letters and their marks, as Whisper writes them: one word has one spelling. `nfkc` also turns full-width
    letters, ligatures and Arabic presentation forms into plain letters; do not use it for Thai or Lao, whose vowel AM it splits.
    `keep` changes no form."""
    replace: dict[str, str] = Field(default_factory=dict)
    """Plain text -> what stands in its place, applied in this order. The keys are no regular expressions. Keys and values are
    brought into the form that `unicode` names."""
    strip_markup: list[str] = Field(default_factory=list)
    """Kinds of markup to delete: angle, double_round, round, square, curly, round_marks, square_marks, curly_marks,
    partial_words. `<name>` deletes the elements of that name with the words in them, such as <background> noise </background>.
    Elements go first, then the kinds in the order given here, whatever the order of the list."""

    @field_validator("replace")
    @classmethod
    def _replaced_text_is_not_empty(cls, replace: dict[str, str]) -> dict[str, str]:
        if "" in replace:
            raise ValueError("the empty text stands everywhere; name the text to replace")
        return replace

    @field_validator("strip_markup")
    @classmethod
    def _markup_is_known(cls, kinds: list[str]) -> list[str]:
        for kind in kinds:
            if kind not in MARKUP and not _ELEMENT.fullmatch(kind):
                raise ValueError(f"{kind!r} is no kind of markup{nearest(kind, MARKUP)}; write <name> for the elements of a name")
        return kinds

    def normalized(self, text: str) -> str:
        """Returns a text in the form that `unicode` names."""
        if self.unicode == "keep":
            return text
        return unicodedata.normalize("NFC" if self.unicode == "nfc" else "NFKC", text)
