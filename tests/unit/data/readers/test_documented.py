"""Every row of the table "you have, you write" of docs/data.md reads a miniature of the layout that it stands for."""

import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import yaml
from recordings import PITCHES, heard, tone, write, write_call, write_long
from unit.data.readers.test_archives import write_tar
from unit.data.readers.test_hugging_face import rows, table, write_parquet
from unit.data.readers.test_lhotse import cut, recording, supervision, write_lines

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.sources import open_split

REPO = Path(__file__).parents[4]
CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]
MAKERS: dict[str, Callable[[Path], object]] = {}


def documented() -> dict[str, str]:
    """Returns "you have" -> the YAML of "you write"."""
    found = re.findall(
        r"^\| ([^|]+) \|[^|]*\| `(\{source: .*\})` \|$", (REPO / "docs" / "data.md").read_text(encoding="utf-8"), re.M
    )
    return dict(found)


def makes(title: str):
    def register(maker: Callable[[Path], object]) -> Callable[[Path], object]:
        MAKERS[title] = maker
        return maker

    return register


def write_rows(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_table(path: Path, head: str, line: str, separator: str = ",") -> None:
    """Writes a table; in a line, N is the number of the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [head, *(line.replace("N", str(number)) for number in range(3))]
    path.write_text("".join(row.replace(",", separator) + "\n" for row in content))


def write_clips(folder: Path, suffix: str = "wav") -> None:
    for number, pitch in enumerate(PITCHES):
        write(folder / f"{number}.{suffix}", tone(pitch))


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@makes("a NeMo manifest, also `.jsonl.gz`")
def _(folder: Path) -> None:
    write_clips(folder)
    write_rows(folder / "train.jsonl", [{"audio_filepath": f"{n}.wav", "text": f"text {n}", "lang": "es"} for n in range(3)])


@makes("stretches of long recordings")
def _(folder: Path) -> None:
    write_long(folder / "long.wav")
    times: list[dict] = [{"offset": 0, "duration": 1}, {"start": 1, "end": 2}, {"offset": 2.0, "duration": 1.0}]
    write_rows(folder / "train.jsonl", [{"audio_filepath": "long.wav", "text": f"text {n}"} | row for n, row in enumerate(times)])


@makes("times in milliseconds, under names of your own")
def _(folder: Path) -> None:
    write_long(folder / "long.wav")
    lines = [{"audio_filepath": "long.wav", "begin": 1000 * n, "until": 1000 * (n + 1), "text": f"text {n}"} for n in range(3)]
    write_rows(folder / "train.jsonl", lines)


@makes("calls with a speaker on each channel")
def _(folder: Path) -> None:
    write_call(folder / "call.sph", format="NIST", subtype="ULAW")
    lines = [{"audio_filepath": "call.sph", "channel": 0, "offset": n, "duration": 1, "text": f"text {n}"} for n in range(3)]
    write_rows(folder / "train.jsonl", lines)


@makes("a tarred NeMo manifest")
def _(folder: Path) -> None:
    sounds = [row["audio"]["bytes"] for row in rows(folder)]
    write_tar(folder / "audio_0.tar", {"a.wav": sounds[0]})
    write_tar(folder / "audio_1.tar", {"b.wav": sounds[1], "c.wav": sounds[2]})
    lines = [{"audio_filepath": f"{c}.wav", "text": f"text {n}", "shard_id": min(n, 1)} for n, c in enumerate("abc")]
    write_rows(folder / "tarred_audio_manifest.json", lines)


@makes("Common Voice")
def _(folder: Path) -> None:
    write_clips(folder / "clips", "mp3")
    head = "client_id,path,sentence_id,sentence,up_votes,down_votes,age,gender,accents,variant,locale,segment"
    write_table(folder / "train.tsv", head, "c,N.mp3,s,text N,2,0,,,,,es,", "\t")


@makes("SpeechBrain tables, also of another machine (TunSwitch)")
def _(folder: Path) -> None:
    write_clips(folder / "wavs")
    write_table(folder / "train.csv", "ID,duration,start,wav,spk_id,wrd", "N,1.0,0.0,/their/disk/wavs/N.wav,spk,text N")


@makes("a table that names its audio (ASCEND)")
def _(folder: Path) -> None:
    write_clips(folder / "waves")
    write_table(folder / "train_metadata.csv", "file_name,transcription,duration,language", "waves/N.wav,text N,1.0,mixed")


@makes("folders with a `metadata.csv`")
def _(folder: Path) -> None:
    write_clips(folder / "training", "flac")
    write_table(folder / "training" / "metadata.csv", "file_name,text,lang", "N.flac,text N,es")


@makes("a text beside every recording")
def _(folder: Path) -> None:
    write_clips(folder / "training", "flac")
    write_files(folder / "training", {f"{number}.txt": f"text {number}\n" for number in range(3)})


@makes("a Kaldi data directory")
def _(folder: Path) -> None:
    write_long(folder / "train" / "long.wav")
    lines = [("text", "u{0} text {0}\n"), ("segments", "u{0} rec {0} {1}\n"), ("utt2lang", "u{0} es\n")]
    files = {name: "".join(line.format(n, n + 1) for n in range(3)) for name, line in lines}
    write_files(folder / "train", files | {"wav.scp": "rec long.wav\n"})


def path_with_programs(folder: Path) -> str:
    """Returns a PATH with the programs that corpora below a folder bring along."""
    return os.pathsep.join([*(str(place) for place in folder.rglob("bin") if place.is_dir()), os.environ["PATH"]])


@makes("Kaldi with pipes")
def _(folder: Path) -> None:
    """Writes a program that is called sph2pipe and writes its last argument to its output."""
    write_clips(folder / "sph")
    program = folder / "bin" / "sph2pipe"
    copy = "import sys\nsys.stdout.buffer.write(open(sys.argv[-1], 'rb').read())\n"
    write_files(folder, {"bin/sph2pipe": f"#!{sys.executable}\n{copy}"})
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    pipe = f"u{{0}} {program.resolve()} -f wav -p -c 1 {folder.resolve()}/sph/{{0}}.wav |\n"
    texts = {"text": "".join(f"u{n} text {n}\n" for n in range(3)), "wav.scp": "".join(map(pipe.format, range(3)))}
    write_files(folder / "train", texts)


@makes("NIST's STM (TED-LIUM)")
def _(folder: Path) -> None:
    write_long(folder / "sph" / "talk.sph", format="NIST", subtype="PCM_16")
    write_files(folder, {"stm/talk.stm": "".join(f"talk 1 speaker {n} {n + 1} <o,f0,male> text {n}\n" for n in range(3))})


@makes("Lhotse cuts, or supervisions with recordings")
def _(folder: Path) -> None:
    write_long(folder / "audio" / "long.wav")
    made = cut([supervision(n, n) for n in range(3)], recording=recording("their/audio/long.wav"))
    write_lines(folder / "cuts_train.jsonl.gz", [made])


@makes("a Lhotse Shar folder")
def _(folder: Path) -> None:
    sounds = {f"cut{n}.wav": row["audio"]["bytes"] for n, row in enumerate(rows(folder))}
    write_tar(folder / "shar" / "recording.000000.tar", sounds)
    shar = recording(sources=[{"type": "shar", "channels": [0], "source": ""}])
    write_lines(
        folder / "shar" / "cuts.000000.jsonl.gz", [cut([supervision(n, 0)], id=f"cut{n}", recording=shar) for n in range(3)]
    )


@makes("parquet as a hub repository has it")
def _(folder: Path) -> None:
    made = rows(folder)
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", made[:2])
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", made[2:])


@makes("parquet as the hub converts it (FLEURS)")
def _(folder: Path) -> None:
    for configuration, made in (("es_419", rows(folder)), ("en_us", rows(folder)[:1])):
        lines = [{"audio": row["audio"], "transcription": row["text"], "language": "Spanish"} for row in made]
        write_parquet(folder / configuration / "train" / "0000.parquet", lines)


@makes("WebDataset shards")
def _(folder: Path) -> None:
    sounds = [row["audio"]["bytes"] for row in rows(folder)]
    files = {"0.wav": sounds[0], "0.txt": b"text 0", "1.wav": sounds[1], "1.json": b'{"text": "text 1"}'}
    write_tar(folder / "clips-000.tar", files)
    write_tar(folder / "clips-001.tar", {"2.wav": sounds[2], "2.txt": b"text 2"})


@makes("a hub data set")
def _(folder: Path) -> None:
    card = "configs:\n- config_name: clean\n  data_files:\n  - split: train\n    path: clean/*.parquet\n"
    write_files(folder, {"README.md": f"---\n{card}---\n"})
    write_parquet(folder / "clean" / "0.parquet", rows(folder.parent))


@makes("a hub data set with a loading script")
def _(folder: Path) -> None:
    write_parquet(folder / "es_419" / "train" / "0000.parquet", rows(folder.parent))
    write_parquet(folder / "en_us" / "train" / "0000.parquet", rows(folder.parent)[:1])


@makes("a hub data set of which a part is enough")
def _(folder: Path) -> None:
    write_parquet(folder / "train.parquet", rows(folder.parent))


@makes("a folder of `save_to_disk`, also with audio as `array`")
def _(folder: Path) -> None:
    lines = [
        {"audio": {"array": tone(pitch).tolist(), "sampling_rate": 16_000}, "sentence": f"text {n}"}
        for n, pitch in enumerate(PITCHES)
    ]
    datasets.DatasetDict(train=datasets.Dataset.from_list(lines)).save_to_disk(folder)


@makes("data prepared by the paper's own code")
def _(folder: Path) -> None:
    more = {"start": 12_000, "end": 13_000, "duration": 1000, "language": "zh,en"}
    lines = [
        {"uid": f"u{n}", "audio": row["audio"], "transcript": f"<|startoftranscript|><|zh|>text {n}<|endoftext|>"} | more
        for n, row in enumerate(rows(folder.parent))
    ]
    datasets.DatasetDict(train=table(lines)).save_to_disk(folder)


def test_every_row_of_the_table_has_a_miniature():
    assert documented().keys() == MAKERS.keys() and len(MAKERS) > 20


@pytest.mark.process
@pytest.mark.parametrize("title", MAKERS)
def test_what_the_table_says_reads_what_it_says(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "spools"))
    block = yaml.safe_load(documented()[title])
    Path(block["source"]).mkdir(parents=True)
    MAKERS[title](Path(block["source"]))
    monkeypatch.setenv("PATH", path_with_programs(tmp_path))

    split = open_split("mine", DatasetConfig(**block), "train")

    assert heard(split) == CLIPS[: block.get("max_clips", 3)]
    languages = {block["language"]} if "language" in block else {"es", "en"}
    assert {clip.language for clip in split.clips} <= languages
