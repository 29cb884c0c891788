import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, tone, write, write_long

from wfc_dist.data.readers.archives import members, numbered
from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def write_tar(path: Path, files: dict[str, bytes], **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sound(folder: Path, pitch: float | None = None, suffix: str = "wav") -> bytes:
    path = folder / f"sound.{suffix}"
    return (write_long(path) if pitch is None else write(path, tone(pitch))).read_bytes()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", {0: "a.tar"}),
        ("a_{0..2}.tar", {0: "a_0.tar", 1: "a_1.tar", 2: "a_2.tar"}),
        ("a__OP_1..2_CL_.tar", {1: "a_1.tar", 2: "a_2.tar"}),
        ("a-{008..010}.tar", {8: "a-008.tar", 9: "a-009.tar", 10: "a-010.tar"}),
        ("b{0..1}/a{0..1}.tar", {0: "b0/a0.tar", 1: "b0/a1.tar", 2: "b1/a0.tar", 3: "b1/a1.tar"}),
    ],
)
def test_numbered_names(pattern, names):
    assert numbered(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a_{2..1}.tar", r"the range \{2\.\.1\} runs backwards"),
        ("a_{0..99999999}.tar", "more than 100000 files"),
        ("{0..999}/{0..999}.tar", "more than 100000 files"),
    ],
)
def test_ranges_that_cannot_be_meant_are_refused(pattern, message):
    with pytest.raises(InputError, match=message):
        numbered(pattern)


def test_members_are_where_they_say(tmp_path):
    files = {"a.txt": b"one", "folder/" + "x" * 200: b"two" * 300, "./b.txt": b""}
    found = list(members(write_tar(tmp_path / "a.tar", files)))
    assert {member.name: member.read() for member in found} == {name.removeprefix("./"): data for name, data in files.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gzip.compress, r"is packed by gzip"),
        (lambda raw: raw[:700], r"is cut off within a\.txt"),
        (lambda raw: raw[:1536], r"is cut off: it has no end mark"),
        (lambda raw: raw + raw, r"goes on behind its end mark"),
        (lambda raw: b"no archive" * 200, r"cannot read the archive"),
        (lambda raw: b"", r"cannot read the archive"),
    ],
)
def test_archives_that_cannot_be_read_are_named(tmp_path, change, message):
    path = write_tar(tmp_path / "a.tar", {"a.txt": b"content" * 140})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"a\.tar.*{message}|{message}.*a\.tar"):
        list(members(path))


def test_an_archive_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the archive .*none\.tar: No such file"):
        list(members(tmp_path / "none.tar"))


def write_shards(folder: Path, rows: list[dict] | None = None) -> Path:
    """Writes two archives with three recordings, and their manifest."""
    sounds = [sound(folder, pitch) for pitch in PITCHES]
    write_tar(folder / "audio_0.tar", {"a_0.wav": sounds[0], "a_1.wav": sounds[1]})
    write_tar(folder / "audio_1.tar", {"a_2.wav": sounds[2]})
    usual = [{"audio_filepath": f"a_{n}.wav", "text": f"text {n}", "duration": 1.0, "shard_id": n // 2} for n in range(3)]
    (folder / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows or usual))
    return folder


@pytest.mark.parametrize("tar", ["audio__OP_0..1_CL_.tar", "audio_{0..1}.tar"])
@pytest.mark.parametrize("changes", [{}, {"shard_id": None}, {"audio_filepath": "/their/wav/{}"}, {"duration": None}])
def test_tarred_manifests(tmp_path, tar, changes):
    rows = []
    for number in range(3):
        row = {"audio_filepath": f"a_{number}.wav", "text": f"text {number}", "duration": 1.0, "shard_id": number // 2}
        row |= {key: value.format(row[key]) if value else value for key, value in changes.items()}
        rows.append({key: value for key, value in row.items() if value is not None})
    assert heard(opened(write_shards(tmp_path, rows), "train.json", tar=tar)) == CLIPS


def test_numbered_manifests_with_their_archives(tmp_path):
    write_shards(tmp_path)
    rows = (tmp_path / "train.json").read_text().splitlines()
    (tmp_path / "manifest_0.json").write_text("\n".join(rows[:2]))
    (tmp_path / "manifest_1.json").write_text(rows[2])
    assert heard(opened(tmp_path, "manifest__OP_0..1_CL_.json", tar="audio__OP_0..1_CL_.tar")) == CLIPS


def test_further_rows_of_a_recording_in_an_archive(tmp_path):
    write_tar(tmp_path / "audio.tar", {"long.wav": sound(tmp_path)})
    rows = [
        {"audio_filepath": f"long{'-sub' + str(n) if n else ''}.wav", "text": f"text {n}", "offset": n, "duration": 1}
        for n in range(3)
    ]
    (tmp_path / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert heard(opened(tmp_path, "train.json", tar="audio.tar")) == CLIPS


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"shard_id": 7}, {}, r"train\.json:1: shard_id is 7, but tar names the archives 0 to 1"),
        ({"shard_id": "0"}, {}, r"train\.json:1: shard_id is '0'"),
        ({"shard_id": True}, {}, r"train\.json:1: shard_id is True"),
        ({"shard_id": 1}, {}, r"train\.json:1: a_0\.wav is nowhere; expected once in audio_1\.tar"),
        ({"audio_filepath": "none.wav"}, {}, r"train\.json:1: none\.wav is nowhere; expected once in audio_\{0\.\.1\}\.tar"),
        ({"shard_id": 0}, {"tar": None}, r"train\.json:1: shard_id says that the audio is in archives"),
        ({}, {"tar": "audio_{0..2}.tar"}, r"cannot read the archive .*audio_2\.tar"),
        ({}, {"tar": "twice_{0..1}.tar"}, r"a_0\.wav is a_0\.wav in .*twice_0\.tar and a_0\.wav in .*twice_1\.tar"),
    ],
)
def test_rows_without_their_member_are_named(tmp_path, row, keys, message):
    write_shards(tmp_path, [{"audio_filepath": "a_0.wav", "text": "text"} | row])
    for number in range(2):
        write_tar(tmp_path / f"twice_{number}.tar", {"a_0.wav": b"same"})
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(tmp_path, "train.json", **{"tar": "audio_{0..1}.tar"} | keys)


def test_broken_audio_in_an_archive_is_named(tmp_path):
    write_tar(tmp_path / "audio.tar", {"a.wav": b"no audio"})
    (tmp_path / "train.json").write_text('{"audio_filepath": "a.wav", "text": "text"}\n')
    with pytest.raises(InputError, match=r"cannot read audio at byte 512 of .*audio\.tar"):
        opened(tmp_path, "train.json", tar="audio.tar")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("pattern", ["clips-{000..001}.tar", "clips-*.tar", "clips"])
def test_webdataset(tmp_path, pattern, suffix):
    files = [
        {
            f"a/{n}.{suffix}": sound(tmp_path, pitch, suffix),
            f"a/{n}.json": json.dumps({"text": f"text {n}", "lang": "en"}).encode(),
        }
        for n, pitch in enumerate(PITCHES)
    ]
    for folder in (tmp_path, tmp_path / "clips"):
        write_tar(folder / "clips-000.tar", files[0] | files[1])
        write_tar(folder / "clips-001.tar", files[2])
    split = opened(tmp_path, pattern, format="webdataset")
    assert heard(split) == CLIPS and [clip.id for clip in split.clips] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        ({"txt": "text 0\n"}, {}),
        ({"txt": "\ufefftext 0", "json": "{}"}, {}),
        ({"txt": "text 0", "json": '{"text": "text 0"}'}, {}),
        ({"txt": "other", "json": '{"text": "text 0", "offset": 0.0, "duration": 1.0}'}, {"text_column": "text"}),
        ({"txt": "text 0", "json": '{"text": "other"}'}, {"text_column": "txt"}),
        ({"json": '{"sentence": "text 0"}'}, {"text_column": "sentence"}),
        ({"trans": "text 0"}, {"text_column": "trans"}),
        ({"TXT": "text 0"}, {}),
        ({"txt": "text 0", "mp3": "other"}, {"audio_column": "wav"}),
    ],
)
def test_texts_of_a_sample(tmp_path, files, keys):
    content = {"a.wav": sound(tmp_path, PITCHES[0])} | {f"a.{suffix}": text.encode() for suffix, text in files.items()}
    write_tar(tmp_path / "a.tar", content)
    if files.get("txt") == "other":
        with pytest.raises(InputError, match=r"a\.tar:a: text and \.txt are different texts"):
            opened(tmp_path, "a.tar", format="webdataset", **keys)
        return
    assert heard(opened(tmp_path, "a.tar", format="webdataset", **keys)) == CLIPS[:1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"text"}, r"a\.tar:a: no audio \(there is: txt\)"),
        ({"a.wav": b"", "a.flac": b"", "a.txt": b"text"}, r"a\.tar:a: wav and flac"),
        ({"a.0.wav": b"", "a.1.wav": b"", "a.txt": b"text"}, r"a\.tar:a: 0\.wav and 1\.wav .*up to its first dot"),
        ({"a.wav": b""}, r"a\.tar:a: no text under 'text'"),
        ({"a.wav": b"", "b.wav": b"", "a.txt": b"text", "b.txt": b"text"}, r"not one after the other|a\.tar:a: no text"),
        ({"a.wav": b"", "a.txt": b"\xe9t\xe9"}, r"a\.tar:a: a\.txt is not UTF-8"),
        ({"a.wav": b"", "a.json": b"{"}, r"a\.tar:a: a\.json is not JSON"),
        ({"a.wav": b"", "a.json": b"[]"}, r"a\.tar:a: a\.json is no JSON object"),
        ({"a.wav": b"", "a.json": b'{"text": "t", "start": 1}'}, r"a\.tar:a: start and end may be times"),
        ({}, r"no clips in|cannot read"),
    ],
)
def test_samples_that_are_no_clips_are_named(tmp_path, files, message):
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(tmp_path, "a.tar", format="webdataset")


@pytest.mark.parametrize("pattern", ["none.tar", "none-{0..1}.tar", "none-*.tar"])
def test_shards_that_are_missing_are_named(tmp_path, pattern):
    with pytest.raises(InputError, match=r"none-0|none\.tar|no shard 'none"):
        opened(tmp_path, pattern, format="webdataset")
