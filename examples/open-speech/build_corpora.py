"""Makes the corpora of configs/compare-open-speech.yaml: six sets to learn, three languages to keep; real speech, open licences.

    python examples/open-speech/build_corpora.py --out corpora/open-speech --work /var/tmp/prompts

Needs Debian's apt-get and dpkg-deb (about 250 MB of packages); no root, nothing is installed. Writes manifests,
OUT/<set>/{train,dev,test}.jsonl, and OUT/<set>/audio/*.flac, mono, 16 kHz. The same packages give the same sets: nothing is drawn
but with a fixed seed.

es, it       telephone prompts, one professional voice each (Asterisk core sounds; CC-BY-SA-3.0, CC-BY-3.0)
cs, nl       acted dialogue of a game, several voices, close to its subtitles but not exact (Fish Fillets NG; GPL-2)
es-it, it-nl code-switching ASSEMBLED of two sets, the language changing in the middle of a clip: real voices, not spontaneous
en, fr, ru   telephone prompts as above, a test side only: languages that must be kept

Sides are drawn by the hash of the sentence, so that none is on two of them; a code-switched clip's halves are of its own side.
`--sides WORD` draws others.
"""

import argparse
import json
import random
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))
from build_corpus import Prompt, draw, is_usable, read_prompts, side, trim, unpack

from wfc_dist.data.audit import normal_text

RATE_HZ = 16_000
DEMO_RATE_HZ = 8_000  # of the prompts that the demo's recipe reads
SIDES = ("train", "dev", "test")
TRAIN_S, DEV_S, NUM_TEST = 600.0, 60.0, 40
"""Seconds to train on and of the dev side, and clips of the test side, at most: the sets are to be of one size."""
SEED = 260651416
DIALOG = re.compile(r'dialogId\(\s*"([^"]+)"[^)]*\)\s*dialogStr\(\s*(?:"((?:[^"\\]|\\.)*)"|\[\[(.*?)\]\])', re.DOTALL)
"""A line of dialogue in a level's script: its id, then its text in quotes or in long brackets."""


def resampled(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Returns mono float32 samples at RATE_HZ."""
    return np.asarray(soxr.resample(samples, rate_hz, RATE_HZ), dtype=np.float32)


def prompts(language: str, work: Path) -> Iterator[Prompt]:
    """Yields the telephone prompts of a language at RATE_HZ."""
    for prompt in read_prompts(language, work):
        yield Prompt(prompt.key, prompt.text, prompt.language, resampled(prompt.samples, DEMO_RATE_HZ))


def subtitles(folder: Path, language: str) -> dict[tuple[str, str], str]:
    """Returns (level, id) -> what is said, from the game's scripts."""
    found = {}
    for path in sorted(folder.glob(f"**/*dialogs_{language}.lua")):
        level = path.parent.relative_to(folder).as_posix()
        for key, quoted, long in DIALOG.findall(path.read_text(encoding="utf-8", errors="replace")):
            found[level, key] = " ".join((quoted or long).replace("\\n", " ").replace('\\"', '"').split())
    return found


def dialogue(language: str, work: Path) -> Iterator[Prompt]:
    """Yields the game's spoken lines in a language, every sentence once."""
    root = unpack(["fillets-ng-data", f"fillets-ng-data-{language}"], work) / "usr/share/games/fillets-ng"
    texts, seen = subtitles(root / "script", language), set()
    for path in sorted((root / "sound").glob(f"**/{language}/*.ogg")):
        level = path.parents[1].relative_to(root / "sound").as_posix()
        text = texts.get((level, path.stem), "")
        if is_usable(text, language, sf.info(path).duration) and normal_text(text) not in seen:
            seen.add(normal_text(text))
            samples, rate_hz = sf.read(path, dtype="float32", always_2d=True)
            yield Prompt(f"{level}-{path.stem}", text, language, resampled(samples.mean(axis=1), rate_hz))


def seconds(chosen: Sequence[Prompt]) -> float:
    """Returns how long clips are together."""
    return sum(len(prompt.samples) for prompt in chosen) / RATE_HZ


def choose(found: Sequence[Prompt], salt: str = "") -> dict[str, list[Prompt]]:
    """Returns what is kept of each side, in an order without meaning. Another salt draws other sides."""
    chosen: dict[str, list[Prompt]] = {name: [] for name in SIDES}
    for prompt in sorted(found, key=lambda prompt: draw(prompt.text + " order")):
        name = side(prompt.text, salt)
        here = chosen[name]
        if not is_full(name, [*here, prompt]):
            here.append(prompt)
    return chosen


def is_full(name: str, clips: Sequence[Prompt]) -> bool:
    """Says whether these are more than a side may hold."""
    return len(clips) > NUM_TEST if name == "test" else seconds(clips) > {"train": TRAIN_S, "dev": DEV_S}[name]


def assemble(first: Sequence[Prompt], second: Sequence[Prompt], salt: str = "") -> dict[str, list[Prompt]]:
    """Returns clips of two languages, one clip of each after a short pause; which comes first alternates."""
    drawn = random.Random(SEED)
    sides: dict[str, list[Prompt]] = {}
    for name in SIDES:
        pools = [
            [prompt for prompt in pool if side(prompt.text, salt) == name and 1 <= seconds([prompt]) <= 5]
            for pool in (first, second)
        ]
        clips: list[Prompt] = []
        while True:
            pair = [drawn.choice(pool) for pool in pools][:: 1 if len(clips) % 2 == 0 else -1]
            pause = np.zeros(round(drawn.uniform(0.05, 0.3) * RATE_HZ), np.float32)
            samples = np.concatenate([trim(pair[0].samples), pause, trim(pair[1].samples)])
            samples /= max(1.0, float(np.abs(samples).max()))
            clip = Prompt(f"{name}-{len(clips):03d}", f"{pair[0].text} {pair[1].text}", pair[0].language, samples)
            if is_full(name, [*clips, clip]):
                break
            clips.append(clip)
        sides[name] = clips
    return sides


def write_set(folder: Path, sides: dict[str, list[Prompt]]) -> None:
    """Writes manifests and audio of one set; an earlier one is replaced. Prints clips and minutes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "audio").mkdir(parents=True)
    for name, chosen in sides.items():
        rows = []
        for prompt in chosen:
            file = f"audio/{re.sub(r'[^A-Za-z0-9]+', '-', prompt.key)}.flac"
            sf.write(folder / file, np.clip(prompt.samples, -1, 1), RATE_HZ)
            length_s = round(len(prompt.samples) / RATE_HZ, 4)
            rows.append({"audio_filepath": file, "duration": length_s, "text": prompt.text, "lang": prompt.language})
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    figures = ", ".join(f"{name} {len(chosen)} clips {seconds(chosen) / 60:.1f} min" for name, chosen in sides.items())
    print(f"{folder.name}: {figures}", flush=True)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("corpora/open-speech"))
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/wfc-demo-packages"), help="downloaded packages are kept here")
    parser.add_argument(
        "--sides", default="", help="any word: draws other sides, for a study whose test sets nobody has looked at"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = {language: list(prompts(language, args.work)) for language in ("es", "it", "en", "fr", "ru")}
    found |= {language: list(dialogue(language, args.work)) for language in ("cs", "nl")}
    for language in ("es", "cs", "it", "nl"):
        write_set(args.out / language, choose(found[language], args.sides))
    for first, second in (("es", "it"), ("it", "nl")):
        write_set(args.out / f"{first}-{second}", assemble(found[first], found[second], args.sides))
    for language in ("en", "fr", "ru"):
        write_set(args.out / language, {"test": choose(found[language], args.sides)["test"]})


if __name__ == "__main__":
    main()
