"""From sources of speech to a first configuration: `wfc init`."""

from collections.abc import Sequence
from pathlib import Path

from wfc_dist.coordinator.machine import this_machine
from wfc_dist.coordinator.proposal import USUAL_MODEL, Proposal, propose
from wfc_dist.data.detection.look import Corpus, look
from wfc_dist.data.languages import language_code
from wfc_dist.errors import ConfigError
from wfc_dist.progress import counting
from wfc_dist.storage import durable


def first_configuration(sources: Sequence[str], *, name: str = "", model: str = "", language: str = "") -> Proposal:
    """Looks at sources, and returns a configuration for them. Writes nothing.

    Args:
        sources: Folders, manifests, hub ids.
        name: Of the run; "" makes one of the names of the data sets.
        model: The base; "" takes the usual one.
        language: Of data sets whose rows do not say theirs; "" guesses it by their names.

    Raises:
        InputError: A source is none; says what was found in it.
        ConfigError: An option cannot be what it says.
    """
    code = language_code(language) if language else None
    if language and code is None:
        raise ConfigError(f"--language {language!r} is no language of Whisper; use a code such as en or es")
    corpora: list[Corpus] = []
    with counting("sources looked at") as told:
        for number, source in enumerate(sources, start=1):
            corpora += [corpus for corpus in look(source) if not _is_known(corpus, corpora)]
            told("wfc init", number, len(sources))
    for corpus in corpora:
        if code and (corpus.language or corpus.is_silent):
            corpus.language, corpus.language_by = code, "--language"
            corpus.todo = [todo for todo in corpus.todo if not todo.startswith("language")]
    from wfc_dist.weights import checkpoint  # loads torch

    root = checkpoint.local_root(model or USUAL_MODEL)
    return propose(corpora, this_machine(), model=model, name=name, root=root)


def _is_known(corpus: Corpus, before: Sequence[Corpus]) -> bool:
    """Says whether a source brings what one before has brought: the same folder, or another split of its manifests."""

    def place(one: Corpus) -> list[object]:
        return [one.block.get(key) for key in ("source", "subset", "data_dir")]

    return any(place(corpus) == place(one) and {*corpus.splits.values()} <= {*one.splits.values()} for one in before)


def write_configuration(proposal: Proposal, path: Path) -> Path:
    """Writes a configuration to a file that is not there yet, and returns the path.

    Raises:
        ConfigError: The file is there, or its folder cannot be written.
    """
    try:
        durable.write_new_text(path, proposal.text())
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already, and is not written over; choose another --out, or move it away") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return path
