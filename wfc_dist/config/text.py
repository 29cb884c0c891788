"""stand-in until the text branch lands."""

from wfc_dist.config.training import Strict


class TextConfig(Strict):
    """How transcripts are cleaned."""
