"""What a clip must be: a file of the page's own uploads, not too large, not too long, and audio."""

from pathlib import Path

from wfc_dist.data.audio_files import AudioFile, audio_facts
from wfc_dist.errors import InputError

MAX_MB = 50
MAX_S = 600.0


def require_clip(path: str | None, uploads: Path) -> tuple[Path, float]:
    """Returns the file of a clip, and its length in seconds.

    Args:
        path: Where the page says that the clip is; None where there is none.
        uploads: The folder of what was uploaded. A file elsewhere is refused, whatever the page says.

    Raises:
        InputError: No clip, a file that was not uploaded, one that is too large, empty or too long, or one that is no audio.
    """
    if not path:
        raise InputError("there is no clip; record one, or drop an audio file on the field")
    found = Path(path).resolve()
    if not found.is_relative_to(uploads.resolve()) or not found.is_file():
        raise InputError("the clip was not uploaded here; drop it on the field again")
    if (size_mb := found.stat().st_size / 1e6) > MAX_MB:
        raise InputError(f"the clip has {size_mb:.0f} MB; the page takes {MAX_MB} MB, `wfc transcribe` takes any size")
    try:
        facts = audio_facts(AudioFile(str(found)))
    except InputError as error:  # names the place of the upload, which says nothing to a user
        raise InputError(f"{found.name} cannot be read as audio; drop a file that a player plays") from error
    length_s = facts.frames / facts.rate_hz
    if not length_s:
        raise InputError(f"{found.name} is empty; record it again")
    if length_s > MAX_S:
        limit = f"{MAX_S / 60:.0f} minutes"
        raise InputError(f"the clip lasts {length_s / 60:.1f} minutes; the page takes {limit}, `wfc transcribe` takes any length")
    return found, length_s
