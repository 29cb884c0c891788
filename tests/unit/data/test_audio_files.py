"""The true length of audio, whatever its header says; stretches, channels, codecs that cannot be sought in, and containers."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from wfc_dist.data.audio_files import AudioFile, audio_facts, blocks, decode, true_duration_s
from wfc_dist.data.audio_streams import BLOCK_FRAMES
from wfc_dist.errors import InputError

RATE = 16_000
SECONDS = 4.0
PADDING_S = 0.13  # that an encoder puts around each part


def tone(pitch: float = 440, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def heard(samples: np.ndarray, pitch: float) -> float:
    time = np.arange(len(samples)) / RATE
    return float(abs(2 * np.mean(samples * np.exp(-2j * np.pi * pitch * time))))


def encoded(name: str, samples: np.ndarray | None = None, rate: int = RATE, **how: str) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, tone() if samples is None else samples, rate, format=how.pop("format", name.upper()), **how)
    return buffer.getvalue()


def muxed(path: Path, container: str, codec: str, samples: np.ndarray, *, options: dict[str, str] | None = None) -> None:
    """Encodes through PyAV, into a file that the writer does not go back in if the container allows it."""
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        if codec == "libmp3lame":
            stream.codec_context.flags |= 2  # a variable rate
            stream.codec_context.global_quality = 4 * 118
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.rate = RATE
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format, "mono", RATE, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                out.mux(packet)


def unknown_length(flac: bytes) -> bytes:
    blob = bytearray(flac)
    blob[21] &= 0xF0  # the 36 bits of STREAMINFO that count samples; 0 is "unknown"
    blob[22:26] = bytes(4)
    return bytes(blob)


def wav_with_data_size(size: int) -> bytes:
    wav = encoded("wav")
    place = wav.index(b"data") + 4
    return wav[:place] + size.to_bytes(4, "little") + wav[place + 4 :]


MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
ID3 = b"ID3\x04\0\0\0\0\x02\x01" + bytes(257)
WHOLE: dict[str, tuple[str, Callable[[], bytes], float]] = {
    "wav": ("a.wav", lambda: encoded("wav"), SECONDS),
    "flac": ("a.flac", lambda: encoded("flac"), SECONDS),
    "ogg": ("a.ogg", lambda: encoded("ogg"), SECONDS),
    "mp3": ("a.mp3", lambda: encoded("", **MP3), SECONDS),
    "mp3 behind an ID3 tag": ("a.mp3", lambda: ID3 + encoded("", **MP3), SECONDS),
    "mp3 before an ID3v1 tag": ("a.mp3", lambda: encoded("", **MP3) + b"TAG" + bytes(125), SECONDS),
    "mp3 of three joined": ("a.mp3", lambda: encoded("", **MP3) * 3, 3 * SECONDS),
    "mp3 of two joined, the first with ID3": ("a.mp3", lambda: ID3 + encoded("", **MP3) * 2, 2 * SECONDS),
    "flac of three joined": ("a.flac", lambda: encoded("flac") * 3, 3 * SECONDS),
    "flac of unknown length": ("a.flac", lambda: unknown_length(encoded("flac")), SECONDS),
    "ogg of three joined": ("a.ogg", lambda: encoded("ogg") * 3, 3 * SECONDS),
    "wav through a pipe": ("a.wav", lambda: wav_with_data_size(0xFFFFFFFF), SECONDS),
    "wav through another pipe": ("a.wav", lambda: wav_with_data_size(0x7FFFF000), SECONDS),
    "mu-law sphere": ("a.sph", lambda: encoded("", tone(rate=8000), 8000, format="NIST", subtype="ULAW"), SECONDS),
    "GSM 6.10": ("a.wav", lambda: encoded("wav", tone(rate=8000), 8000, subtype="GSM610"), SECONDS),
    "G.721": ("a.au", lambda: encoded("", tone(rate=8000), 8000, format="AU", subtype="G721_32"), SECONDS),
    "G.723": ("a.au", lambda: encoded("", tone(rate=8000), 8000, format="AU", subtype="G723_24"), SECONDS),
    "IMA ADPCM": ("a.wav", lambda: encoded("wav", tone(rate=8000), 8000, subtype="IMA_ADPCM"), SECONDS),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_length_and_samples_are_what_is_there(kind: str, tmp_path: Path) -> None:
    name, make, seconds = WHOLE[kind]
    (tmp_path / name).write_bytes(make())
    audio = AudioFile(str(tmp_path / name))
    parts = round(seconds / SECONDS)
    assert true_duration_s(audio) == pytest.approx(seconds, abs=PADDING_S * parts)
    samples = decode(audio)
    assert len(samples) / RATE == pytest.approx(true_duration_s(audio), abs=1e-3)
    assert heard(samples[RATE : RATE * 2], 440) > 0.25
    assert heard(samples[-RATE * 2 : -RATE], 440) > 0.25


@pytest.mark.parametrize("first", ["loud", "quiet"])
def test_mp3_of_variable_rate_without_a_length_is_read_whole(first: str, tmp_path: Path) -> None:
    noise, silence = 0.3 * np.random.default_rng(1).standard_normal(5 * RATE), np.zeros(15 * RATE)
    parts = (noise, silence) if first == "loud" else (silence, noise)
    muxed(tmp_path / "a.mp3", "mp3", "libmp3lame", np.clip(np.concatenate(parts), -1, 1), options={"write_xing": "0"})
    assert sf.info(tmp_path / "a.mp3").duration != pytest.approx(20, abs=1)  # what the header would say
    audio = AudioFile(str(tmp_path / "a.mp3"))
    assert true_duration_s(audio) == pytest.approx(20, abs=PADDING_S)
    assert len(decode(audio)) / RATE == pytest.approx(20, abs=PADDING_S)
    last = decode(AudioFile(str(tmp_path / "a.mp3"), 17.0, 2.0))
    assert len(last) == 2 * RATE and (float(np.abs(last).max()) > 0.1) == (first == "quiet")


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [("mp4", "aac", "a.m4a"), ("adts", "aac", "a.aac"), ("webm", "libopus", "a.webm"), ("matroska", "pcm_s16le", "a.mkv")],
)
def test_containers_that_libsndfile_cannot_read_go_through_pyav(container, codec, name, tmp_path: Path) -> None:
    muxed(tmp_path / name, container, codec, tone())
    audio = AudioFile(str(tmp_path / name), 1.0, 2.0)
    assert audio_facts(audio).frames / audio_facts(audio).rate_hz == pytest.approx(SECONDS, abs=PADDING_S)
    assert len(decode(audio)) == 2 * RATE and heard(decode(audio), 440) > 0.2


@pytest.mark.process
@pytest.mark.parametrize("kind", ["flac of unknown length", "ogg of three joined", "m4a"])
def test_without_pyav_the_extra_is_named(kind: str, tmp_path: Path) -> None:
    name, make, _ = WHOLE.get(kind, ("a.m4a", lambda: b"\0\0\0\x1cftypM4A ", 0))
    (tmp_path / name).write_bytes(make())
    code = f"""
import sys
sys.modules["av"] = None
from wfc_dist.data.audio_files import AudioFile, decode
from wfc_dist.data.audio_streams import BLOCK_FRAMES
from wfc_dist.errors import InputError
try:
    decode(AudioFile({str(tmp_path / name)!r}))
except InputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert name in said and "pip install 'wfc-dist[av]'" in said


@pytest.mark.parametrize(
    ("kind", "name", "make"),
    [
        ("no bytes", "a.wav", lambda: b""),
        ("text", "a.wav", lambda: b"this is no audio"),
        ("cut-off flac", "a.flac", lambda: encoded("flac")[:20_000]),
        ("the head of a flac", "a.flac", lambda: encoded("flac")[:200]),
        ("cut-off ogg", "a.ogg", lambda: encoded("ogg")[:3_000]),
        ("the head of an mp3", "a.mp3", lambda: encoded("", **MP3)[:100]),
        ("wav of no size", "a.wav", lambda: wav_with_data_size(0)),
    ],
)
def test_what_cannot_be_read_to_its_end_is_refused_by_name(kind, name, make, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(make())
    audio = AudioFile(str(tmp_path / name))
    with pytest.raises(InputError, match=f"{tmp_path / name}.*(replace it|is missing)"):
        decode(audio)
        assert true_duration_s(audio) == 0


@pytest.mark.parametrize(
    ("name", "make", "seconds", "doubt"),
    [
        (
            "a.wav",
            lambda: encoded("wav")[:76_844],
            2.4,
            "it is cut off: its header states 128000 bytes of audio, 768",
        ),
        ("a.au", lambda: encoded("au") * 3, SECONDS, "its header states 128000 bytes of audio, but the file has 384072"),
        ("a.wav", lambda: wav_with_data_size(1000), 500 / RATE, "its header states 1000 bytes of audio, but the file has 128044"),
        ("a.wav", lambda: wav_with_data_size(64_000), 2.0, "its header states 64000 bytes of audio, but more samples follow"),
        ("a.wav", lambda: wav_with_data_size(0), 0.0, "its header states 0 bytes of audio"),
        ("a.mp3", lambda: encoded("", **MP3)[:3_500], None, "it is cut off: its header states [0-9]* bytes of audio, 3500 are"),
        ("a.mp3", lambda: (ID3 + encoded("", **MP3))[:3_500], None, "it is cut off: its header states [0-9]* bytes of audio, 3"),
        ("a.wav", lambda: encoded("wav") * 2, SECONDS, "libsndfile says: .*; FFmpeg reads 4.0 s of it"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_told(name, make, seconds, doubt, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(make())
    facts = audio_facts(AudioFile(str(tmp_path / name)))
    assert seconds is None or facts.frames / facts.rate_hz == pytest.approx(seconds, abs=0.01)
    assert re.search(doubt, facts.doubt)


@pytest.mark.parametrize("behind", [b"LIST\x04\0\0\0abcd", b"id3 \x03\0\0\0abc\0", bytes(512), b""])
def test_what_may_stand_behind_samples_is_no_doubt(behind: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("wav") + behind * 20)
    assert not audio_facts(AudioFile(str(tmp_path / "a.wav"))).doubt


@pytest.mark.parametrize("kind", ["wav", "mp3 of three joined", "flac of unknown length"])
def test_a_name_may_be_no_utf8(kind: str, tmp_path: Path) -> None:
    name, make, seconds = WHOLE[kind]
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe" + name.encode())
    Path(path).write_bytes(make())
    assert len(decode(AudioFile(path))) / RATE == pytest.approx(seconds, abs=3 * PADDING_S)


def test_a_playlist_leads_to_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(encoded("wav"))
    (tmp_path / "a.m4a").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(InputError, match=r"cannot read audio .*a\.m4a"):
        decode(AudioFile(str(tmp_path / "a.m4a")))


def test_the_mp3_that_was_cut_off_has_the_length_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(encoded("", **MP3)[:3_500])
    audio = AudioFile(str(tmp_path / "a.mp3"))
    assert 1.5 < true_duration_s(audio) < 3.5
    assert len(decode(audio)) / RATE == pytest.approx(true_duration_s(audio), abs=1e-3)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.au", "joined.mp3", "unknown.flac"])
def test_a_stretch_is_where_it_is(name: str, tmp_path: Path) -> None:
    samples = np.concatenate([tone(pitch, 1.0) for pitch in (300, 500, 700)])
    how = {"a.au": {"format": "AU", "subtype": "G721_32"}}.get(name) or (MP3 if name.endswith("mp3") else {})
    content = encoded(Path(name).suffix[1:], samples, **how)
    content = {"joined.mp3": content * 2, "unknown.flac": unknown_length(content)}.get(name, content)
    (tmp_path / name).write_bytes(content)
    for number, pitch in enumerate((300, 500, 700)):
        clip = decode(AudioFile(str(tmp_path / name), number + 0.2, 0.6))
        assert len(clip) == round(0.6 * RATE) and heard(clip, pitch) > 0.25


def test_one_channel_is_read_alone_and_their_mean_without_a_name(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.stack([tone(300), tone(700)], 1), RATE)
    levels = [
        [round(heard(decode(AudioFile(str(tmp_path / "a.wav"), channel=channel)), pitch), 2) for pitch in (300, 700)]
        for channel in (0, 1, None)
    ]
    assert levels == [[0.3, 0.0], [0.0, 0.3], [0.15, 0.15]]
    with pytest.raises(InputError, match=r"has 2 channels, so no channel 2 \(counted from 0\)"):
        decode(AudioFile(str(tmp_path / "a.wav"), channel=2))


def test_audio_inside_an_archive_is_read_by_its_place(tmp_path: Path) -> None:
    parts = [encoded("wav", tone(pitch, 1.0)) for pitch in (300, 700)]
    (tmp_path / "a.tar").write_bytes(b"x" * 100 + b"".join(parts))
    audio = AudioFile(str(tmp_path / "a.tar"), first_byte=100 + len(parts[0]), num_bytes=len(parts[1]))
    assert true_duration_s(audio) == 1.0 and heard(decode(audio), 700) > 0.25
    assert audio.size_bytes() == len(parts[1])


def test_a_long_file_comes_in_blocks(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros((RATE * 60, 2), np.float32), RATE)
    sizes = [len(block) for _, block in blocks(AudioFile(str(tmp_path / "a.wav")))]
    assert len(sizes) > 1 and sum(sizes) == RATE * 60


def test_a_file_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    audio = AudioFile(str(tmp_path / "a.wav"))
    for seconds in (1.0, 2.0):
        sf.write(tmp_path / "a.wav", tone(seconds=seconds), RATE)
        assert true_duration_s(audio) == seconds


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize(
    "how",
    [MP3, {"format": "OGG", "subtype": "VORBIS"}, {"format": "FLAC"}, {"format": "WAV", "subtype": "IMA_ADPCM"},
     {"format": "WAV", "subtype": "GSM610"}, {"format": "AU", "subtype": "G721_32"}, {"format": "NIST", "subtype": "ULAW"}],
    ids=lambda how: how.get("subtype", how["format"]),
)  # fmt: skip
def test_a_stretch_is_that_part_of_the_whole_recording(how: dict[str, str], rate: int, tmp_path: Path) -> None:
    """A plain seek within an mp3 of a low rate yields thousands of wrong samples."""
    seconds = 40 if how["format"] in ("MP3", "OGG", "FLAC") and rate < 44_100 else 4
    noise = (0.2 * np.random.default_rng(0).standard_normal(rate * seconds)).astype(np.float32)
    sf.write(tmp_path / "a", noise, rate, **how)
    whole = np.concatenate([block for _, block in blocks(AudioFile(str(tmp_path / "a")))])
    assert (len(whole) > BLOCK_FRAMES) == (seconds == 40)
    for offset_s in (share * seconds for share in (0.0, 0.005, 0.18, 0.5, 0.8)):
        part = np.concatenate([block for _, block in blocks(AudioFile(str(tmp_path / "a"), offset_s, 0.7))])
        first = round(offset_s * rate)
        assert np.abs(part - whole[first : first + len(part)]).max() < 1e-6 and len(part) == round(0.7 * rate)
