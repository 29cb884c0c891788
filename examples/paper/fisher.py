"""Prepares Fisher Spanish, telephone calls with stretches of English (LDC2010S01 speech, LDC2010T04 transcripts).

    python examples/paper/fisher.py --speech LDC2010S01 --transcripts LDC2010T04 --lists split_fisher --out corpora/paper/fisher

Obtain: both entries from the Linguistic Data Consortium, whose pages have the licence; and the lists train, dev, dev2 and
test of Kaldi's recipe, egs/fisher_callhome_spanish/s5/local/splits/split_fisher, a name such as 20051017_215732_274_fsp.sph
a line.

Layout; other folders may lie between:
    LDC2010S01/[DISC1/|DISC2/]data/speech/*.sph               NIST SPHERE, mu-law, 8 kHz, two channels, one speaker on each
    LDC2010T04/fisher_spa_tr/data/transcripts/*.tdf           UTF-8, tabs, 3 header lines, then rows of 11 columns or more
    LDC2010T04/**/*_call.tbl                                  commas, 1 header line; 0 call, 2 and 8 speakers of the channels
Columns of a tdf: 0 file, 1 channel (0 or 1), 2 start s, 3 end s, 4 speaker, 5 gender, 6 native, 7 text, 8 section, 9 turn,
10 segment. No audio is copied: a row becomes a stretch of one channel of its call.

Writes train, dev, dev2 and test, by call. Taken are the rows with a stretch of English, <foreign lang="English"> ...
</foreign>, the code-switching part; --all takes every row. The tags are also read where they are misspelt (foreing,
langenglish, no closing >). A tag without a language counts as English. word_langs (es, en) is written where every tag opens
and closes, in English.

Cleaning: <laugh>..</laugh>, <background>..</background>, <cough/>, <sneeze/>, <breath/> and <lipsmack/> go, of
<lname>X</lname> X stays; lower case; punctuation and symbols are deleted, also the inverted marks (an apostrophe in a word
stays). Dropped: rows with "((", whose words are a guess; rows with another tag, fewer columns, no time between start and
end, or no text; calls in no list. Times that are no numbers, a channel that is not 0 or 1, and a recording without two
channels stop the script.

Not verified (written without the discs): whether files are compressed with shorten, which libsndfile does not read. Convert
such files with sph2pipe (-p -f wav, both channels) to a folder and give that as --speech. The paper's own list of its
code-switching part is not public, so the rows taken here need not be its rows.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile as sf
from manifests import Clip, Dropped, LayoutError, by_stem, end_within, folder, parser_of, read_lines, run, write_manifests
from texts import marks_to, one_spaced, plain

SPLITS = ("train", "dev", "dev2", "test")
NUM_HEADER_LINES, NUM_COLUMNS = 3, 11
SPOKEN_OVER = re.compile(r"<\s*(laugh|background)\s*>(?:(?!<\s*/?\s*\1\s*>).)*<\s*/\s*\1\s*>", re.I)
NOISE = re.compile(r"<\s*/?\s*(?:laugh|background|cough|sneeze|breath|lipsmack)\s*/?\s*>|</b\b>?", re.I)
NAME = re.compile(r"<\s*/?\s*lname\s*/?\s*>", re.I)
FOREIGN = re.compile(
    r'<\s*(?P<close>/?)\s*for[a-z]*(?P<lang>(?:\s+lan\w*(?:\s*=\s*"?\s*\w*"?|"\w*"?)?)?)\s*>?|(?P<bare>\bforeign>)', re.I
)
"""A tag of a language, opening or closing, also misspelt and without its last >; or what is left of one."""


def stretches(text: str) -> tuple[list[tuple[str, str]], bool, bool]:
    """Returns (text, language) of the parts of a row, whether one is English, and whether the languages of all are certain."""
    parts, english, certain = [], False, True
    language, position = "es", 0
    for tag in FOREIGN.finditer(text):
        parts.append((text[position : tag.start()], language))
        position = tag.end()
        if tag["bare"] or bool(tag["close"]) == (language == "es"):
            certain = False
        if tag["bare"] or tag["close"]:
            language = "es"
        else:
            name = re.sub(r'^\s*lan?g?|[\s="]', "", tag["lang"], flags=re.I).lower()
            language = "en" if not name or name.startswith(("en", "in")) else "other"
            english |= language == "en"
            certain &= language == "en"
    parts.append((text[position:], language))
    return parts, english, certain and language == "es"


def clean(text: str) -> str:
    """Returns words by the rule above, of a text without tags of languages. Another tag stays."""
    text = plain(text).lower()
    return text if "<" in text or ">" in text else one_spaced(marks_to(text, ""))


def words_of(text: str) -> tuple[str, tuple[str, ...], bool]:
    """Returns the cleaned text, the language of every word (() where one is not certain), and whether there is English."""
    text = NAME.sub("", text)
    while (without := SPOKEN_OVER.sub(" ", text)) != text:
        text = without
    parts, english, certain = stretches(NOISE.sub(" ", text))
    words = [(word, language) for part, language in parts for word in clean(part).split()]
    return " ".join(word for word, _ in words), tuple(language for _, language in words) if certain else (), english


def read_speakers(transcripts: Path) -> dict[str, tuple[str, str]]:
    """Returns call -> the speakers of channels 0 and 1."""
    paths = sorted(transcripts.rglob("*_call.tbl"))
    if not paths:
        raise LayoutError(f"no *_call.tbl in {transcripts}; expected the table of the calls, with the speakers")
    speakers = {}
    for where, line in list(read_lines(paths[0]))[1:]:
        cells = [cell.strip() for cell in line.split(",")]
        if line.strip() and len(cells) < 9:
            raise LayoutError(f"{where}: {len(cells)} columns, expected 9 or more: call 0, speakers 2 and 8")
        if line.strip():
            speakers[cells[0]] = (cells[2], cells[8])
    return speakers


def read_lists(folder_of_lists: Path) -> dict[str, str]:
    """Returns call, by the stem of its file -> split. Raises LayoutError for a call of two splits."""
    found: dict[str, str] = {}
    for split in SPLITS:
        for where, line in read_lines(folder_of_lists / split):
            name = line.strip().removesuffix(".sph")
            if found.get(name, split) != split:
                raise LayoutError(f"{where}: {name} is also in {found[name]}; a call must be in one list")
            if name:
                found[name] = split
    return found


def recording_length_s(path: Path) -> float:
    """Returns the seconds of a call. Raises LayoutError if it cannot be read or has not two channels."""
    try:
        info = sf.info(str(path))
    except (sf.SoundFileError, OSError) as error:
        raise LayoutError(
            f"cannot read {path}: {error}; if it is compressed with shorten, convert the calls with sph2pipe -p -f wav"
        ) from error
    if info.channels != 2:
        raise LayoutError(f"{path}: {info.channels} channel, expected 2, one speaker on each; take both channels")
    return info.frames / info.samplerate


def read_rows(path: Path, split: str, dropped: Dropped) -> Iterator[tuple[str, int, float, float, str]]:
    """Yields (where, channel, start, end, text) of a transcript."""
    for number, (where, line) in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        is_row = len(cells) >= NUM_COLUMNS and re.fullmatch(r"\s*[\d.]+\s*", cells[2]) is not None
        if number <= NUM_HEADER_LINES:
            if is_row:
                raise LayoutError(f"{where}: a row, expected {NUM_HEADER_LINES} header lines")
            continue
        if len(cells) < NUM_COLUMNS:
            dropped.add(split, f"the row has fewer than {NUM_COLUMNS} columns" if line.strip() else "an empty row", where)
            continue
        try:
            channel, start_s, end_s = int(cells[1]), float(cells[2]), float(cells[3])
        except ValueError as error:
            raise LayoutError(f"{where}: channel, start and end are {cells[1:4]}; expected 0 or 1, seconds, seconds") from error
        if channel not in (0, 1):
            raise LayoutError(f"{where}: channel {channel}; expected 0 or 1")
        yield where, channel, start_s, end_s, cells[7]


def clips_of(
    transcript: Path, split: str, audio: Path, speakers: tuple[str, str], dropped: Dropped, *, everything: bool
) -> Iterator[Clip]:
    """Yields the clips of a call."""
    length = recording_length_s(audio)
    for where, channel, start_s, end_s, raw in read_rows(transcript, split, dropped):
        text, languages, english = words_of(raw)
        end = end_within(start_s, end_s, length)
        if end is None:
            dropped.add(split, "the stretch is empty, or not in the recording", where)
        elif "((" in raw:
            dropped.add(split, "words that are a guess, ((", where)
        elif "<" in text or ">" in text:
            dropped.add(split, "a tag that the rule does not know", f"{where}: {raw.strip()}")
        elif not text:
            dropped.add(split, "the text is empty after cleaning", where)
        elif not english and not everything:
            dropped.add(split, "no English in it", where)
        else:
            name = f"{transcript.stem}-{channel}-{round(start_s * 1000):07d}-{round(end_s * 1000):07d}"
            yield Clip(name, audio, text, "es", start_s, end - start_s, channel, speakers[channel], languages)


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    speech = folder(arguments.speech, "the speech, LDC2010S01")
    transcripts = folder(arguments.transcripts, "the transcripts, LDC2010T04")
    listed = read_lists(folder(arguments.lists, "the lists train, dev, dev2 and test"))
    speakers, dropped = read_speakers(transcripts), Dropped()
    audio = by_stem([path for path in speech.rglob("*") if path.suffix.lower() in (".sph", ".wav", ".flac")], "*.sph")
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for stem, path in by_stem(list(transcripts.rglob("*.tdf")), "*.tdf").items():
        split = listed.pop(stem, None)
        call = stem.split("_")[2] if stem.count("_") > 1 else stem
        if split is None:
            dropped.add("-", "the call is in no list", str(path))
        elif stem not in audio:
            dropped.add(split, "a call without recording", str(path))
        elif call not in speakers:
            raise LayoutError(f"{path}: call {call} is not in the table of the calls, *_call.tbl")
        else:
            splits[split] += clips_of(path, split, audio[stem], speakers[call], dropped, everything=arguments.all)
    for stem, split in listed.items():
        dropped.add(split, "a listed call without transcript", stem)
    write_manifests(arguments.out, splits, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="LDC2010S01, or a folder of converted calls")
    parser.add_argument("--transcripts", type=Path, required=True, help="LDC2010T04")
    parser.add_argument("--lists", type=Path, required=True, help="folder of the lists train, dev, dev2 and test")
    parser.add_argument("--all", action="store_true", help="take rows without English, too")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
