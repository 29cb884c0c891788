"""Every parser of bytes that others wrote, as a function of these bytes, with a corpus of valid ones to begin from.

A parser may return, or raise a `WfcError`, which `wfc` turns into one message and an exit code. Anything else is a fault.
"""

import atexit
import gzip
import io
import json
import re
import shutil
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import scored_runs
import soundfile as sf
import tiny
import torch
import yaml
from rich.console import Console
from safetensors.torch import save, save_file

from wfc_dist import open_run, run
from wfc_dist.backends.slurm import client, job_process, submission
from wfc_dist.backends.slurm.watching import CurveTail
from wfc_dist.compare import counts, settings, sweep
from wfc_dist.compare.results import system_rows
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.loading import config_hash, load_config, read_tree
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.data.audio_files import AudioFile, audio_facts, decode
from wfc_dist.data.detection.look import look
from wfc_dist.data.facts_cache import FactsCache
from wfc_dist.data.readers.archives import numbered
from wfc_dist.data.sources import open_split
from wfc_dist.errors import WfcError
from wfc_dist.evaluation import matrix
from wfc_dist.evaluation.hypotheses import Hypothesis, read_hypotheses, score_hypotheses, write_hypotheses
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.progress import Display
from wfc_dist.reports import as_json, status, timeline
from wfc_dist.runs.licences import licences_of
from wfc_dist.storage import durable
from wfc_dist.tracking import tail
from wfc_dist.tracking.runs import training_points
from wfc_dist.training import metrics_log
from wfc_dist.weights import adapter_config, base_chain, checkpoint, peft_folder, tensor_files

BETWEEN = b"%%\n"
"""Stands between the files of an input that is several."""
_UNPRINTABLE = re.compile(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
RECORD = {"audio_filepath": "a.wav", "text": "one two", "lang": "en", "duration": 0.1, "offset": 0, "id": "x"}
REGRESSIONS = Path(__file__).with_name("regressions")


@dataclass(frozen=True)
class Parser:
    """A parser of the product.

    Attributes:
        read: Parses bytes; all that it writes is below the folder that it was made for.
        seeds: Valid inputs.
    """

    read: Callable[[bytes], object]
    seeds: list[bytes]


def fault_of(parser: Parser, data: bytes) -> str:
    """Returns what is wrong with a parser's answer to `data`, one line with its place; "" where nothing is."""
    try:
        parser.read(data)
    except WfcError as error:
        return "" if not _UNPRINTABLE.search(str(error)) else f"unprintable message {_place(error)}"
    except Exception as error:
        return f"{type(error).__name__} {_place(error)}"
    return ""


def _place(error: BaseException) -> str:
    """Returns the innermost line of the product that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/wfc_dist/" in frame.filename]
    return f"at {frames[-1].filename.rpartition('/wfc_dist/')[2]}, {frames[-1].line}" if frames else "outside of wfc_dist"


def regressions(name: str) -> list[Path]:
    """Returns the inputs of a parser that once were faults."""
    return sorted((REGRESSIONS / name).glob("*"))


# Configurations


def _config_tree() -> dict:
    parts = {name: {"source": f"data/{name}", "splits": {"train": "train.jsonl", "test": "test.jsonl"}} for name in "ab"}
    return {
        "run": {"name": "x", "dir": "runs"}, "base": {"model": "m"}, "datasets": parts, "rounds": [["a", "b"]],
        "lora": {"r": 4, "alpha": 8.0, "target_modules": ["q_proj"]}, "train": {"lr": 1e-3, "betas": [0.9, 0.98], "max_steps": 3},
        "centralize": {"method": "ties", "options": {"density": 0.2}, "quorum": 1}, "evaluate": {"num_beams": 2},
        "cluster": {"backend": "slurm", "slurm": {"time_min": 5, "parameters": {"account": "x"}}},
    }  # fmt: skip


def _config(folder: Path) -> Parser:
    def read(data: bytes) -> None:
        (folder / "config.yaml").write_bytes(data)
        config = load_config(folder / "config.yaml")
        config_hash(config)
        config.run_dir()

    dumped = yaml.safe_dump(_config_tree(), sort_keys=False).encode()
    examples = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))
    return Parser(read, [dumped, *(path.read_bytes() for path in examples), b"a: &a [1]\nb: *a\n<<: {c: 2026-01-01}\n"])


def _override(folder: Path) -> Parser:
    (folder / "config.yaml").write_text(yaml.safe_dump(_config_tree()))
    words = ("train.lr=1e-4", "run.name=x", "rounds=[[a],[b]]", "datasets.a.columns={id: null}", "lora.r=8", "train.betas=[0,.5]")

    def read(data: bytes) -> None:
        load_config(folder / "config.yaml", data.decode(errors="surrogateescape").split("\n"))

    return Parser(read, [word.encode() for word in words])


def _comparison(folder: Path) -> Parser:
    tree = _config_tree()
    tree.pop("rounds")
    systems = {
        "untouched": {},
        "centralize": {"every": 2},
        "ties": {"preset": "centralize", "every": 2, "set": {"centralize.method": "ties"}},
    }
    over = {"train.lr": [1e-3, 1e-4], "lora.r": [2, 4]}
    compared = tree | {"compare": {"seeds": [1, 2], "reference": "centralize", "systems": systems}}
    swept = tree | {"sweep": {"over": over, "seeds": [1], "system": {"every": 1}}}

    def read(data: bytes) -> None:
        (folder / "config.yaml").write_bytes(data)
        (sweep if "sweep" in read_tree(folder / "config.yaml") else settings).load(folder / "config.yaml")

    return Parser(read, [yaml.safe_dump(one, sort_keys=False).encode() for one in (compared, swept)])


def _ranges(folder: Path) -> Parser:
    return Parser(
        lambda data: numbered(data.decode(errors="replace")), [b"a_{0..7}.tar", b"x__OP_0..3_CL__OP_1..2_CL_.tar", b"a"]
    )


# Data sets


def _wave(kind: str = "WAV", subtype: str | None = None, channels: int = 1) -> bytes:
    buffer, ramp = io.BytesIO(), np.linspace(-0.5, 0.5, 1600 * channels, dtype=np.float32).reshape(-1, channels)
    sf.write(buffer, ramp, 16_000, format=kind, subtype=subtype)
    return buffer.getvalue()


def _data_set(folder: Path, name: str, seeds: Iterable[bytes], *beside: str, split: str = "", **keys: object) -> Parser:
    """Returns the parser of a data set, whose files are `name` and `beside`."""
    for audio in ("a.wav", "audio/a.wav", "train/a.wav"):
        (folder / audio).parent.mkdir(exist_ok=True)
        (folder / audio).write_bytes(_wave())
    dataset = DatasetConfig.model_validate({"source": str(folder), "splits": {"train": split or name}} | keys)

    def read(data: bytes) -> None:
        for path in (folder / ".cache", *(folder / other for other in (name, *beside))):
            path.unlink(missing_ok=True)
        for other, part in zip((name, *beside), data.split(BETWEEN) if beside else [data], strict=False):
            (folder / other).write_bytes(part)
        _ = open_split("set", dataset, "train").fingerprint

    return Parser(read, list(seeds))


def _jsonl(folder: Path, name: str = "train.jsonl", **keys: object) -> Parser:
    rows = [RECORD, RECORD | {"start": 0.01, "end": 0.05, "channel": 0}, {"audio": "a.wav", "text": "a"}]
    rows += [RECORD | {"text": "a b", "word_langs": ["en", "es"]}]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    packed = gzip.compress if name.endswith("gz") else bytes
    return _data_set(folder, name, [packed(line) for line in [*lines, lines[0] * 3]], **keys)


def _csv(folder: Path, name: str, separator: str, **keys: object) -> Parser:
    rows = [
        ["path", "text", "lang", "duration", "channel"],
        ["a.wav", '"one, ""two"""', "en", "0.1", "0"],
        ["a.wav", "b", "es", "", ""],
    ]
    text = "".join(separator.join(row) + "\n" for row in rows).encode()
    return _data_set(folder, name, [text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n")], **keys)


def _metadata(folder: Path) -> Parser:
    return _data_set(
        folder, "train/metadata.csv", [b"file_name,text\na.wav,one\n"], split="train", format="folder", language="en"
    )


def _texts_beside(folder: Path) -> Parser:
    return _data_set(folder, "train/a.txt", [b"one two"], split="train", format="folder", language="en")


def _kaldi(folder: Path) -> Parser:
    parts = [b"u1 one\nu2 two\n", b"r a.wav\n", b"u1 r 0 0.05\nu2 r 0.05 -1\n", b"u1 en\nu2 es\n", b"r r A\n"]
    whole = [b"u1 one\n", b"u1 a.wav:0\n", b"u1 u1 0 1\n"]
    piped = [b"u1 one\n", b"u1 true a.wav |\n", b"u1 u1 0 1\n"]
    beside = [f"train/{name}" for name in ("wav.scp", "segments", "utt2lang", "reco2file_and_channel")]
    seeds = [BETWEEN.join(one) for one in (parts, whole, piped)]
    return _data_set(folder, "train/text", seeds, *beside, split="train", format="kaldi", language="en", allow_pipes=["true"])


def _stm(folder: Path) -> Parser:
    lines = b";; c\na 1 spk 0.0 0.05 <o,f0,male> one\na A spk 0.05 0.1 two\na 1 s 0 1 ignore_time_segment_in_scoring\n"
    return _data_set(folder, "train.stm", [lines], format="stm", language="en", audio_dir="audio")


def _lhotse(folder: Path) -> Parser:
    recording = {"id": "rec", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "sampling_rate": 16_000,
                 "num_samples": 1600, "duration": 0.1, "channel_ids": [0]}  # fmt: skip
    said = {"id": "s", "recording_id": "rec", "start": 0.0, "duration": 0.05, "channel": 0, "text": "one", "language": "English"}
    cut = {
        "id": "c",
        "start": 0,
        "duration": 0.1,
        "channel": 0,
        "supervisions": [said],
        "recording": recording,
        "type": "MonoCut",
    }
    seeds = [json.dumps(cut).encode(), json.dumps(said).encode() + b"\n" + BETWEEN + json.dumps(recording).encode()]
    return _data_set(folder, "supervisions_train.jsonl", seeds, "recordings_train.jsonl", format="lhotse", language="en")


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _webdataset(folder: Path) -> Parser:
    files = {"a.wav": _wave(), "a.json": b'{"text": "one", "lang": "en"}', "b.wav": _wave("WAV", "PCM_U8"), "b.txt": b"two"}
    seeds = [_tar(files), _tar({"a.wav": b"", "a.txt": b"x"}), _tar({"l" * 120 + ".txt": b"x"})]
    return _data_set(folder, "a.tar", seeds, format="webdataset", language="en")


def _tarred(folder: Path) -> Parser:
    row = json.dumps(RECORD | {"shard_id": 0}).encode() + b"\n"
    seeds = [row + BETWEEN + _tar({"a.wav": _wave()}), row.replace(b"a.wav", b"a-sub1.wav") + BETWEEN + _tar({"a.wav": _wave()})]
    return _data_set(folder, "train.jsonl", seeds, "a_0.tar", tar="a_{0..0}.tar")


def _parquet(folder: Path) -> Parser:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([{"audio": {"bytes": _wave(), "path": "a.wav"}, "text": "one"}]), buffer)
    # A loaded file is remembered by its name, size and time.
    keys = {"format": "parquet", "language": "en", "streaming": True}
    return _data_set(folder, "train.parquet", [buffer.getvalue()], **keys)


def _detection(folder: Path) -> Parser:
    (folder / "a.wav").write_bytes(_wave())
    names = ("train.jsonl", "metadata.csv", "README.md", "dataset_dict.json", "train.stm", "text", "wav.scp")
    card = b"---\nlicense: cc-by-4.0\nconfigs:\n- config_name: x\n  data_files: train.jsonl\n---\n"
    table = b"file_name,text\na.wav,one\n"
    seeds = [json.dumps(RECORD).encode(), BETWEEN + table, BETWEEN * 2 + card, BETWEEN * 3 + b'{"splits": ["train"]}']
    seeds += [BETWEEN * 4 + b"a 1 s 0 1 one\n", BETWEEN * 5 + b"u one\n" + BETWEEN + b"u a.wav\n"]

    def read(data: bytes) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        for name, part in zip(names, data.split(BETWEEN), strict=False):
            if part and not (name == "README.md" and b"configs:" in part):  # `datasets` reads such a repository
                (folder / name).write_bytes(part)
        look(str(folder))

    return Parser(read, seeds)


def _card(folder: Path) -> Parser:
    dataset = DatasetConfig(source=str(folder), splits={"train": "train.jsonl"})
    (folder / "train.jsonl").write_text("")

    def read(data: bytes) -> None:
        (folder / "README.md").write_bytes(data)
        licences_of(dataset)

    return Parser(read, [b"---\nlicense: cc-by-4.0\n---\ntext\n", b"---\nlicense:\n- mit\n- other\n---\n"])


def _audio(folder: Path, suffix: str, kinds: Iterable[tuple[str, str | None, int]]) -> Parser:
    def read(data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        audio = AudioFile(str(path))
        facts = audio_facts(audio)
        assert facts.frames >= 0 and facts.rate_hz > 0 and facts.channels > 0
        assert len(decode(AudioFile(str(path), 0.01, 0.02))) <= 16_000

    return Parser(read, [_wave(*kind) for kind in kinds])


def _facts(folder: Path) -> Parser:
    cache = FactsCache(folder, with_signs=True)
    cache.put(("a", 0, 1, 2), audio_facts_of_seed(folder), frozenset({"clipped"}))
    cache.save()
    path = next(path for path in folder.iterdir() if path.name.endswith("npz"))
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        FactsCache(folder, with_signs=True).get(("a", 0, 1, 2))

    return Parser(read, [seed])


def audio_facts_of_seed(folder: Path):
    (folder / "seed.wav").write_bytes(_wave())
    return audio_facts(AudioFile(str(folder / "seed.wav")))


# Weights

MODULE = "base_model.model.model.encoder.layers.0.self_attn.q_proj"
FACTORS = {f"{MODULE}.lora_A.weight": torch.ones(2, 4), f"{MODULE}.lora_B.weight": torch.ones(3, 2)}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "use_rslora": False, "target_modules": ["q_proj"],
        "rank_pattern": {"q_proj": 2}, "alpha_pattern": {".*q_proj": 4.0}, "init_lora_weights": True}  # fmt: skip


def _safetensors(folder: Path) -> Parser:
    def read(data: bytes) -> None:
        (folder / "model.safetensors").write_bytes(data)
        with suppress(WfcError):
            tensor_files.read_header(folder / "model.safetensors")
        base_chain.tensor_specs(folder)
        list(base_chain.read_tensors(folder))

    tensors = {"a": torch.ones(2, 3), "b": torch.ones(0), "c": torch.ones(1, dtype=torch.bfloat16)}
    return Parser(read, [save(tensors), save(FACTORS, {"format": "pt"}), save({"x": torch.ones(2, dtype=torch.int64)})])


def _factors(folder: Path) -> Parser:
    def read(data: bytes) -> None:
        (folder / peft_folder.WEIGHTS).write_bytes(data)
        peft_folder.read_factors(folder)

    (folder / peft_folder.CONFIG).write_text(json.dumps(LORA))
    return Parser(read, [save(FACTORS), save({name.replace(".weight", ".x.weight"): item for name, item in FACTORS.items()})])


def _adapter_config(folder: Path) -> Parser:
    save_file(FACTORS, folder / peft_folder.WEIGHTS)

    def read(data: bytes) -> None:
        (folder / peft_folder.CONFIG).write_bytes(data)
        peft_folder.read_factors(folder)
        adapter_config.name_base(folder, "x/y", None)

    return Parser(read, [json.dumps(LORA).encode(), json.dumps(LORA | {"use_dora": False, "runtime_config": {}}).encode()])


def _delta(folder: Path) -> Parser:
    def read(data: bytes) -> None:
        (folder / base_chain.DELTA).write_bytes(data)
        base_chain.read_delta(folder)

    low = {"m.lora_A": torch.ones(2, 4), "m.lora_B": torch.ones(3, 2), "m.coefficients": torch.ones(2, dtype=torch.float64)}
    return Parser(read, [save(low), save({"m.delta": torch.ones(3, 4), "m.coefficients": torch.ones(1, dtype=torch.float64)})])


def _curvature(folder: Path) -> Parser:
    def read(data: bytes) -> None:
        (folder / peft_folder.STATISTICS).write_bytes(data)
        peft_folder.read_curvature(folder, {"m": (3, 4)}, ["fisher"])

    return Parser(read, [save({"m.fisher": torch.ones(3, 4)})])


def _checkpoint(folder: Path, name: str) -> Parser:
    model = tiny.make_whisper(folder / "model", taciturn=True)
    if name == base_chain.INDEX:
        where = dict.fromkeys(base_chain.weight_map(model), base_chain.SINGLE)
        (model / name).write_text(json.dumps({"weight_map": where}))
    seed = (model / name).read_bytes()

    def read(data: bytes) -> None:
        (model / name).write_bytes(data)
        checkpoint.check(model)
        spelling_table(model)

    return Parser(read, [seed])


def _counts(folder: Path) -> Parser:
    path = folder / counts.COUNTS
    numbers = np.array([1, 0, 2])
    sets = {"a": counts.CountedSet(np.array([4, 5, 6]), np.array([0, 1, 1]))}
    run = counts.CountedRun("mean-2", 1, "", 2.5, {"a": 1}, 1, {(0, "a"): numbers, (1, "a"): numbers})
    made = counts.Counted("c", "mean-2", [1], {"untouched": "", "mean-2": ""}, ["a"], [], 0.95, True, sets, [run],
                          {"untouched": 0, "mean-2": 1})  # fmt: skip
    counts.write_counts(path, made)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(WfcError):
            counts.read_counts(path)
        path.write_bytes(gzip.compress(data))
        system_rows(counts.read_counts(path))

    return Parser(read, [gzip.decompress(path.read_bytes())])


# Runs


def _look(folder: Path) -> None:
    """Reads a run as `wfc status`, `lineage`, `report` and `verify` do; a part that raises does not keep the next from it."""
    run, console = open_run(folder), Console(file=io.StringIO())
    looks = [
        lambda: console.print(status.status_table(run)), lambda: console.print(status.lineage_tree(run)),
        lambda: as_json.text_of(as_json.status_json(run)), lambda: as_json.text_of(as_json.lineage_json(run)),
        lambda: timeline.read_attempts(folder), lambda: matrix.read_matrix(folder), run.ledger, lambda: run.curve(1, "a"),
        lambda: verify_run(folder, display=Display(plain=True)),
    ]  # fmt: skip
    told: list[WfcError] = []
    for one in looks:
        try:
            one()
        except WfcError as error:
            told.append(error)
    if told:
        raise told[0]


def _run_file(folder: Path, name: str, *, sealed: bool = True) -> Parser:
    run_dir = _run(folder)
    path = run_dir / name
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            _look(run_dir)
        except WfcError:
            with suppress(ValueError, RecursionError):
                found = json.loads(data)
                if sealed and isinstance(found, dict):  # as if its checksum were right
                    durable.write_sealed(path, {key: value for key, value in found.items() if key not in ("schema", "checksum")})
            _look(run_dir)

    return Parser(read, [seed])


def _run(folder: Path) -> Path:
    """Returns the directory of a small run, which is made once a process."""
    if not _RUN:
        root = Path(tempfile.mkdtemp(prefix="wfc-fuzz-run-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        one = {"train": {"max_steps": 2}, "evaluate": {"max_clips": 1}, "centralize": {"gate": {"max_update_ratio": 100}}}
        run(load_config(tiny.make_config(root, (("a", "b"), ("c",)), **one)), Display(plain=True))
        progress = {"what": "x", "done": 1, "total": 2, "unit": "u", "left_s": None, "time_s": 1.0, "trainings": []}
        training = {"dataset": "a", "step": 1, "max_steps": 2, "loss": 0.5, "host": "h", "left_s": 3.0}
        durable.write_json(root / "runs" / "tiny" / "progress.json", progress | {"trainings": [training]})
        state = {"state": "running", "message": "[/x]", "attempt": 1, "host": "h", "pid": 1, "time": "t", "exit_code": None}
        durable.write_sealed(root / "runs" / "tiny" / "status.json", state)
        _RUN.append(root / "runs" / "tiny")
    return Path(shutil.copytree(_RUN[0], folder / "run", symlinks=True))


_RUN: list[Path] = []


def _hypotheses(folder: Path) -> Parser:
    path = folder / "set.jsonl"
    write_hypotheses(
        path,
        {"schema": 2, "model_sha256": "0"},
        [Hypothesis("a", ("one",), "one", "en", 1.0), *scored_runs.hypotheses_with(3)[:2]],
    )
    seed = path.read_bytes()
    unsealed = (
        json.dumps({"schema": 2, "num_hypotheses": 1})
        + '\n{"id": "a", "parts": ["x"], "hypothesis": "y", "language": "en", "duration_s": 1}\n'
    )
    evaluate = load_config_of(folder).evaluate

    def read(data: bytes) -> None:
        path.write_bytes(data)
        score_hypotheses(read_hypotheses(path)[1], evaluate, {})

    return Parser(read, [seed, unsealed.encode()])


def load_config_of(folder: Path):
    (folder / "config.yaml").write_text(yaml.safe_dump(_config_tree()))
    return load_config(folder / "config.yaml")


def _curve(folder: Path) -> Parser:
    path = folder / "a.jsonl"
    row = {"step": 1, "loss": 2.0, "lr": 1e-3, "speech_seconds": 3.0}
    seed = b"".join(json.dumps(one).encode() + b"\n" for one in (row, row | {"step": 2}, {"step": 2, "dev_loss": 0.5}))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        CurveTail(path, 10).progress()
        for line in tail.local(path).rows():
            training_points(line)
        metrics_log.cut(path, 1, evaluated=True)

    return Parser(read, [seed])


def _job(folder: Path) -> Parser:
    record = submission.JobRecord(folder / "a-1", "name", "key", "7")
    names = ("job.json", submission.STARTS, "failed-0.json", job_process.RESULT, "batch.log")
    record.folder.mkdir()
    record.write()
    failure = json.dumps(durable.seal({"error": "InputError", "message": "m", "refused": False, "node": "n"})).encode()
    seeds = [
        (record.folder / "job.json").read_bytes()
        + BETWEEN
        + b'{"time": 1}\n'
        + BETWEEN
        + failure
        + BETWEEN
        + b"{}"
        + BETWEEN
        + b"last\n"
    ]

    def read(data: bytes) -> None:
        for name in names:
            (record.folder / name).unlink(missing_ok=True)
        for name, part in zip(names, data.split(BETWEEN), strict=False):
            (record.folder / name).write_bytes(part)
        job_process.read_failure(record.folder)
        job_process.read_result(record.folder)
        found = submission.find(folder, "a")
        assert found is not None
        found.starts()
        found.last_words()

    return Parser(read, seeds)


def _slurm(folder: Path) -> Parser:
    seeds = [b"debug|debug*|1-02:30:00|up\nlong|long|infinite|down\n", b"7|name|RUNNING|node[1-2]|None\n", b"COMPLETED|node1\n",
             b"CANCELLED by 0|None assigned\n", b"JobId=7 ExitCode=0:9 StdOut=/x/y\n", b"0:0\n", b"node1\nnode2\n"]  # fmt: skip
    calls = [client.partitions, partial(client.states, ["name"]), partial(client.state_of, "7"), partial(client.remembered, "7"),
             partial(client.exit_code, "7"), partial(client.output_file, "7"), partial(client.node_names, None),
             partial(client.host_names, "node[1-2]")]  # fmt: skip

    def read(data: bytes) -> None:
        text, told = data.decode(errors="replace"), []
        with mock.patch.object(client, "call", lambda *command: text):  # instead of a cluster that answers so
            for one in calls:
                try:
                    one()
                except WfcError as error:
                    told.append(error)
        if len(told) == len(calls):
            raise told[0]

    return Parser(read, seeds)


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "config": _config,
    "override": _override,
    "comparison": _comparison,
    "counts": _counts,
    "ranges": _ranges,
    "jsonl": _jsonl,
    "jsonl.gz": partial(_jsonl, name="train.jsonl.gz"),
    "jsonl-columns": partial(_jsonl, columns={"id": "id", "start": "offset"}, time_unit="ms"),
    "csv": partial(_csv, name="train.csv", separator=",", format="csv"),
    "tsv": partial(_csv, name="train.tsv", separator="\t", format="csv", quoting="none"),
    "metadata": _metadata,
    "texts-beside": _texts_beside,
    "kaldi": _kaldi,
    "stm": _stm,
    "lhotse": _lhotse,
    "webdataset": _webdataset,
    "tarred": _tarred,
    "parquet": _parquet,
    "detection": _detection,
    "card": _card,
    "wav": partial(_audio, suffix=".wav", kinds=[("WAV", None, 2), ("WAV", "GSM610", 1), ("WAV", "FLOAT", 1), ("RF64", None, 1)]),
    "flac": partial(_audio, suffix=".flac", kinds=[("FLAC", None, 1)]),
    "mp3": partial(_audio, suffix=".mp3", kinds=[("MP3", None, 1)]),
    "ogg": partial(_audio, suffix=".ogg", kinds=[("OGG", None, 1), ("OGG", "OPUS", 1)]),
    "facts-cache": _facts,
    "safetensors": _safetensors,
    "factors": _factors,
    "adapter-config": _adapter_config,
    "delta": _delta,
    "curvature": _curvature,
    "model-config": partial(_checkpoint, name="config.json"),
    "generation-config": partial(_checkpoint, name="generation_config.json"),
    "extractor": partial(_checkpoint, name="preprocessor_config.json"),
    "tokenizer": partial(_checkpoint, name="tokenizer.json"),
    "tokenizer-config": partial(_checkpoint, name="tokenizer_config.json"),
    "weight-map": partial(_checkpoint, name="model.safetensors.index.json"),
    "spelling": partial(_checkpoint, name="normalizer.json"),
    "run-config": partial(_run_file, name="config.json"),
    "run-status": partial(_run_file, name="status.json"),
    "run-progress": partial(_run_file, name="progress.json", sealed=False),
    "run-ledger": partial(_run_file, name="ledger.jsonl"),
    "run-copy": partial(_run_file, name="config-copy.json"),
    "run-base": partial(_run_file, name="base-0001/manifest.json"),
    "run-root": partial(_run_file, name="base-0000/manifest.json"),
    "run-adapter": partial(_run_file, name="round-0001/adapters/a/manifest.json"),
    "run-scores": partial(_run_file, name="round-0002/evaluation/base-0002/scores.json"),
    "run-events": partial(_run_file, name="round-0001/logs/attempt-1/events-coordinator.jsonl", sealed=False),
    "run-curve": partial(_run_file, name="round-0001/training-curves/a.jsonl", sealed=False),
    "hypotheses": _hypotheses,
    "curve": _curve,
    "job": _job,
    "slurm": _slurm,
}
"""Name -> what makes the parser over an empty folder of its own."""


def make(name: str, folder: Path) -> Parser:
    """Returns a parser over a folder, which is made empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return PARSERS[name](folder)
