"""Where a data set is and how it is read: the blocks below `datasets`. Loads neither torch nor ray."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from wfc_dist.config.text import TextConfig
from wfc_dist.config.training import RESUME, Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
SplitName = Literal["train", "dev", "test"]
_MAX_LICENCE = 100
_MAX_NAME_BYTES, _MAX_PATH_LETTERS = 255, 4000  # of Linux
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Column = Literal["id", "language", "offset", "duration", "start", "end", "channel", "word_langs", "group"]
Format = Literal["jsonl", "csv", "folder", "kaldi", "stm", "lhotse", "parquet", "webdataset", "hub", "saved", "mix"]
_HUGGING_FACE: tuple[Format, ...] = ("hub", "saved", "parquet", "webdataset")
_ONLY_WITH: dict[str, tuple[Format, ...]] = {
    "text_column": ("jsonl", "csv", "folder", *_HUGGING_FACE),
    "audio_column": ("jsonl", "csv", "folder", *_HUGGING_FACE),
    "columns": ("jsonl", "csv", "folder", *_HUGGING_FACE),
    "time_unit": ("jsonl", "csv", "folder", *_HUGGING_FACE),
    "text": tuple(name for name in get_args(Format) if name != "mix"),
    "quoting": ("csv", "folder"),
    "audio_dir": ("jsonl", "csv", "folder", "kaldi", "stm", "lhotse", "hub", "saved", "parquet"),
    "path_parts": ("jsonl", "csv", "folder", "kaldi", "lhotse", "hub", "saved", "parquet"),
    "tar": ("jsonl",),
    "allow_pipes": ("kaldi",),
    "subset": ("hub", "parquet"),
    "revision": ("hub",),
    "data_dir": ("hub",),
    "data_files": ("hub",),
    "streaming": ("hub", "parquet"),
}
"""Key -> the formats that read it; elsewhere it is refused, so that no key is passed over."""


def is_licence(value: object) -> bool:
    """Says whether a value can stand for a licence: a text of one line that a table of Markdown holds."""
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= _MAX_LICENCE and not set(value) & set("\n|`")


class DatasetConfig(Strict):
    """One data set: where it is, how it is read, which language token its labels carry."""

    source: str = ""
    """A folder, a file, or a hub id (`format: hub`); of a `mix` nothing."""
    format: Format = "jsonl"
    """How the data lies on the disk, or on the hub (docs/data.md has an example of each)."""
    language: str | None = None
    """Whisper language code, or a name that maps to one; without it every row names its own (`lang`)."""
    splits: dict[SplitName, str] = Field(default_factory=dict)
    """Our split -> file name (jsonl, csv, stm, lhotse), pattern of files (parquet, webdataset), split name (hub, saved) or
    sub-folder (folder, kaldi). Ranges such as {0..7} or _OP_0..7_CL_ name several files (jsonl, webdataset)."""
    text_column: str = "text"
    """The column of the transcripts."""
    audio_column: str = "audio"
    """The column of the audio, or of its paths."""
    columns: dict[Column, str | None] = Field(default_factory=dict)
    """What other columns are called, such as {language: locale, id: ID}; null: a column of that name is not what it seems."""
    time_unit: Literal["s", "ms"] = "s"
    """The unit of offset, duration, start and end: seconds or milliseconds."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`none`: a quotation mark in a table is a letter, as in Common Voice's tsv."""
    audio_dir: str | None = None
    """The folder that relative audio paths start from, itself relative to source; by default that of the manifest."""
    path_parts: int | None = Field(None, ge=1)
    """Only the last parts of an audio path count: with 2, /their/machine/wavs/a.wav is wavs/a.wav."""
    tar: str | None = None
    """NeMo's tarred audio: the archives beside the manifest, such as audio__OP_0..7_CL_.tar."""
    allow_pipes: list[str] = Field(default_factory=list)
    """Programs that a pipe of a Kaldi wav.scp may start, by name, such as [sph2pipe]; others are refused."""
    subset: str | None = None
    """The hub data set's configuration name; of parquet folders the sub-folder."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; by default the newest."""
    data_dir: str | None = None
    """The folder within a hub repository that is read."""
    data_files: str | list[str] | None = None
    """The files within a hub repository that are read, as patterns; {split} stands for the value of `splits`."""
    streaming: bool = False
    """Fetch rows one by one and keep only those that are used, in a folder that goes on where it was interrupted."""
    text: TextConfig = TextConfig()
    """How transcripts are cleaned."""
    metric: Literal["wer", "cer", "mer"] | None = None
    """How errors on its test and dev splits are counted; by default evaluate.metric. A mix is counted with one metric."""
    allow_overlap: list[str] = Field(default_factory=list)
    """Data sets whose test or dev audio may be in this one's train split, by name."""
    share: float = Field(1.0, gt=0, le=1)
    """Keep this share of the clips of each split, evenly spread over it; at least one."""
    max_clips: int | None = Field(None, ge=1)
    """Only the first clips of each split, to try things out."""
    licence: Annotated[str | None, RESUME] = None
    """The licence of the recordings and transcripts, for model cards: an id of the hub such as cc-by-4.0, or a name. `license` is
    the same key. By default that of the data set's own card (README.md), where there is one."""
    parts: dict[Name, "DatasetConfig"] = Field(default_factory=dict)
    """Of a `mix`: the data sets that make it up, one after the other. A part without the split asked for is left out."""

    def where(self) -> str:
        """Returns the source, or the names of the parts, for messages."""
        return self.source or f"the parts {', '.join(self.parts)}"

    def may_share_audio_with(self) -> set[str]:
        """Returns the names of `allow_overlap`, of a mix also those of its parts."""
        return {*self.allow_overlap, *(name for part in self.parts.values() for name in part.may_share_audio_with())}

    def _names_speakers(self) -> bool:
        """Returns whether `columns` says no more than which of the two columns of such formats makes groups."""
        return self.format in ("kaldi", "stm", "lhotse") and self.columns in ({"group": "speaker"}, {"group": "recording"})

    def local_folder(self) -> Path | None:
        """Returns the folder on this machine that the source is or lies in, of a mix that of its first such part; or None."""
        if self.parts:
            return next((folder for part in self.parts.values() if (folder := part.local_folder())), None)
        path = Path(self.source)
        return path if path.is_dir() else path.parent if path.is_file() else None

    @model_validator(mode="before")
    @classmethod
    def _licence_in_either_spelling(cls, tree: Any) -> Any:
        given = [key for key in ("licence", "license") if isinstance(tree, dict) and key in tree]
        if len(given) > 1:
            raise ValueError("licence and license are one key; keep one of them")
        for key in given:
            if tree[key] is not None and not is_licence(tree[key]):
                raise ValueError(f"{key}: {tree[key]!r} is no licence; write an id such as cc-by-4.0, or a name, in one line")
        return {"licence" if key in given else key: value for key, value in tree.items()} if given else tree

    @model_validator(mode="after")
    def _source_or_parts(self) -> "DatasetConfig":
        if (self.format == "mix") != bool(self.parts):
            raise ValueError("format mix needs parts, and only format mix has them")
        if (self.format == "mix") == bool(self.source):
            raise ValueError("source: name a folder, a file or a hub id (only format mix has none)")
        return self

    @model_validator(mode="after")
    def _paths_can_be_paths(self) -> "DatasetConfig":
        places = {"source": self.source, "audio_dir": self.audio_dir or "", "tar": self.tar or "", "subset": self.subset or ""}
        for key, path in {**places, **{f"splits.{split}": name for split, name in self.splits.items()}}.items():
            longest = max(len(part.encode(errors="replace")) for part in path.split("/"))
            if "\0" in path or longest > _MAX_NAME_BYTES or len(path) > _MAX_PATH_LETTERS:
                raise ValueError(f"{key}: {path[:40]!r} is no path: it has a NUL character, or a name that is too long")
        return self

    @model_validator(mode="after")
    def _mix_is_scored_with_one_metric(self) -> "DatasetConfig":
        for name, part in self.parts.items():
            if {"test"} <= self.splits.keys() & part.splits.keys() and part.metric not in (None, self.metric):
                raise ValueError(
                    f"parts.{name}.metric: {part.metric}, but the test splits of a mix are scored together: "
                    f"set metric of the mix to {part.metric}, or leave out that of the part"
                )
        return self

    @model_validator(mode="after")
    def _keys_fit_the_format(self) -> "DatasetConfig":
        for key, formats in _ONLY_WITH.items():
            is_set = getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True)
            if is_set and self.format not in formats and not (key == "columns" and self._names_speakers()):
                raise ValueError(f"{key}: only format {' and '.join(formats)} reads it, not {self.format}")
        if self.streaming and self.share < 1:
            raise ValueError("share: with streaming the number of rows is not known; use max_clips")
        return self
