"""Makes the demo's corpus again: real telephone prompts in five languages, and code-switching assembled from two of them.

    python examples/demo/build_corpus.py --out examples/demo/data --work /var/tmp/prompts

Needs Debian's apt-get and dpkg-deb; no root, nothing is installed. Writes OUT/<set>/{train,dev,test}.jsonl and OUT/<set>/audio.
The same packages and the same libsndfile give the same bytes: nothing is drawn but with a fixed seed.

Sides are drawn by the hash of the normalised text, so no sentence is on two of them; the halves of a code-switched clip come from
clips of its own side. `en` has a test side only: in the demo it is the language that must not be forgotten.
"""

import argparse
import gzip
import hashlib
import io
import json
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile as sf

from wfc_dist.data.audit import normal_text

RATE_HZ = 8_000
"""The prompts are telephone recordings; Opus keeps their band."""
OPUS_COMPRESSION = 0.96
"""About 18 kbit/s at 8 kHz."""
SIDES = ("train", "dev", "test")
VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
TRAIN_S = {"en": 0.0, "es": 540.0}
"""Seconds to train on, 480 where nothing is said."""
DEV_S = {"en": 0.0}
"""Seconds of the dev side, 62 where nothing is said."""
NUM_TEST = 24
SEED = 20250616


@dataclass(frozen=True)
class Prompt:
    """One utterance: samples are float32 mono at RATE_HZ. `word_languages`, of every word, are known where it was assembled."""

    key: str
    text: str
    language: str
    samples: np.ndarray
    word_languages: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE_HZ


def draw(text: str) -> float:
    """Returns a number in [0, 1) that depends on the sentence alone."""
    return int(hashlib.sha256(normal_text(text).encode()).hexdigest()[:12], 16) / 16**12


def side(text: str, salt: str = "") -> str:
    """Returns the side of a sentence: 13 % test, 9 % dev. Another salt draws other sides."""
    drawn = draw(text + salt)
    return "test" if drawn < 0.13 else "dev" if drawn < 0.22 else "train"


def unpack(names: Sequence[str], work: Path) -> Path:
    """Downloads Debian packages into `work`, unpacks them there without installing, and returns the root of their files."""
    root = work / "root"
    for name in names:
        if not (root / "usr/share/doc" / name).is_dir():
            subprocess.run(["apt-get", "download", "-qq", name], cwd=work, check=True)
            package = sorted(work.glob(f"{name}_*.deb"))[-1]
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def is_usable(text: str, language: str, seconds: float) -> bool:
    """Says whether a prompt is a sentence: 1 to 20 s, no notes in brackets, no digits, no letters lost to another encoding."""
    lost = "?" in text if language == "it" else False  # the Italian list has "?" for some accented letters
    return 1 <= seconds <= 20 and bool(re.search(r"\w", text)) and not re.search(r"[\[\](){}<>\d~]", text) and not lost


def read_prompts(language: str, work: Path) -> Iterator[Prompt]:
    """Yields the usable prompts of a language, every sentence once, by key."""
    package = f"asterisk-core-sounds-{language}"
    root = unpack([package, f"{package}-wav"], work)
    with gzip.open(root / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz", "rt", encoding="utf-8-sig") as file:
        entries = [line.split(":", 1) for line in file if ":" in line and not line.startswith(";")]
    folder = root / "usr/share/asterisk/sounds" / VOICES[language]
    seen = set()
    for key, text in sorted((key.strip(), " ".join(text.split())) for key, text in entries):
        path = folder / f"{key}.wav"
        if path.is_file() and is_usable(text, language, sf.info(path).duration) and normal_text(text) not in seen:
            seen.add(normal_text(text))
            samples, rate_hz = sf.read(path, dtype="float32")
            if samples.ndim != 1 or rate_hz != RATE_HZ:
                raise SystemExit(f"{path} is not mono at {RATE_HZ} Hz: another version of {package}?")
            yield Prompt(key, text, language, samples)


def choose(prompts: Sequence[Prompt], language: str) -> dict[str, list[Prompt]]:
    """Returns what is kept of each side, in an order without meaning: so many seconds, or so many clips."""
    limits = {"train": TRAIN_S.get(language, 480.0), "dev": DEV_S.get(language, 62.0), "test": float("inf")}
    chosen: dict[str, list[Prompt]] = {name: [] for name in SIDES}
    for prompt in sorted(prompts, key=lambda prompt: draw(prompt.text + " order")):
        here = chosen[side(prompt.text)]
        seconds = sum(other.seconds for other in here) + prompt.seconds
        if seconds <= limits[side(prompt.text)] and (side(prompt.text) != "test" or len(here) < NUM_TEST):
            here.append(prompt)
    return chosen


def trim(samples: np.ndarray, top_db: float = 38.0) -> np.ndarray:
    """Returns samples without the silence around them, at an RMS level of 0.08."""
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    level_db = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-9)
    loud = np.flatnonzero(level_db > level_db.max() - top_db)
    kept = samples[max(0, int(loud[0]) * 80 - 320) : (int(loud[-1]) + 1) * 80 + 320]
    return np.asarray(kept * (0.08 / max(float(np.sqrt((kept**2).mean())), 1e-4)), dtype=np.float32)


def halves(prompts: Sequence[Prompt], name: str) -> list[Prompt]:
    """Returns the prompts of one side that are short enough to be half of a clip."""
    short = (prompt for prompt in prompts if prompt.seconds <= 5 and "..." not in prompt.text)
    return [prompt for prompt in short if side(prompt.text) == name]


def assemble(english: Sequence[Prompt], spanish: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Returns code-switched clips: an English and a Spanish prompt in turn, which comes first alternating, a short pause between.

    Every half is used once before any is used again; language is that of the first half.
    """
    rng = random.Random(SEED)
    limits = {"train": (480.0, sys.maxsize), "dev": (62.0, sys.maxsize), "test": (float("inf"), NUM_TEST)}
    assembled: dict[str, list[Prompt]] = {}
    for name in SIDES:
        pools = [halves(english, name), halves(spanish, name)]
        queues: list[list[Prompt]] = [[], []]
        clips: list[Prompt] = []
        max_s, max_clips = limits[name]
        while sum(clip.seconds for clip in clips) < max_s and len(clips) < max_clips:
            pair = []
            for queue, pool in zip(queues, pools, strict=True):
                if not queue:
                    queue.extend(rng.sample(pool, len(pool)))
                pair.append(queue.pop())
            first, second = pair if len(clips) % 2 == 0 else pair[::-1]
            pause = np.zeros(round(rng.uniform(0.05, 0.3) * RATE_HZ), np.float32)
            samples = np.concatenate([trim(first.samples), pause, trim(second.samples)])
            samples /= max(1.0, float(np.abs(samples).max()))
            text, languages = (
                f"{first.text} {second.text}",
                [half.language for half in (first, second) for _ in half.text.split()],
            )
            clips.append(Prompt(f"{name}-{len(clips):03d}", text, first.language, samples, tuple(languages)))
        assembled[name] = clips
    return assembled


def ogg_crc(data: bytes) -> int:
    """Returns the checksum of an Ogg page (CRC-32, polynomial 0x04c11db7, not reflected; RFC 3533)."""
    crc = 0
    for byte in data:
        crc = (crc << 8) & 0xFFFFFFFF ^ _CRC[(crc >> 24) ^ byte]
    return crc


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) & 0xFFFFFFFF ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc)
    return table


_CRC = _crc_table()


def with_serial(data: bytes, serial: int) -> bytes:
    """Returns an Ogg file with another stream serial number: libsndfile draws one, which would make every build differ."""
    starts = []
    position = 0
    while position < len(data):
        starts.append(position)
        num_segments = data[position + 26]
        position += 27 + num_segments + sum(data[position + 27 : position + 27 + num_segments])
    pages = []
    for start, end in pairwise([*starts, len(data)]):
        page = bytearray(data[start:end])
        page[14:18], page[22:26] = struct.pack("<I", serial), bytes(4)
        page[22:26] = struct.pack("<I", ogg_crc(bytes(page)))
        pages.append(bytes(page))
    return b"".join(pages)


def encode(samples: np.ndarray) -> bytes:
    """Returns samples as Ogg Opus."""
    buffer = io.BytesIO()
    clipped = np.clip(samples, -1, 1)
    sf.write(buffer, clipped, RATE_HZ, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION)
    return with_serial(buffer.getvalue(), 1)


def write_set(folder: Path, sides: dict[str, list[Prompt]]) -> None:
    """Writes manifests and audio of one set; an earlier one is replaced. Prints clips, minutes and megabytes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "audio").mkdir(parents=True)
    for name, prompts in sides.items():
        rows = []
        for prompt in prompts:
            file = f"audio/{re.sub(r'[^A-Za-z0-9]+', '-', prompt.key)}.opus"
            (folder / file).write_bytes(encode(prompt.samples))
            row = {"audio_filepath": file, "duration": round(prompt.seconds, 6), "text": prompt.text, "lang": prompt.language}
            rows.append(row | ({"word_langs": prompt.word_languages} if prompt.word_languages else {}))
        if rows:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    figures = ", ".join(f"{name} {len(p)} clips {sum(x.seconds for x in p) / 60:.1f} min" for name, p in sides.items() if p)
    print(f"{folder.name}: {figures}; {size_mb:.2f} MB", flush=True)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/wfc-demo-packages"), help="downloaded packages are kept here")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    prompts = {language: list(read_prompts(language, args.work)) for language in VOICES}
    for language in VOICES:
        write_set(args.out / language, choose(prompts[language], language))
    write_set(args.out / "cs-en-es", assemble(prompts["en"], prompts["es"]))


if __name__ == "__main__":
    main()
