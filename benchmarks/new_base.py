"""K adapters on disk -> a durable base with checksums that from_pretrained takes: this project's merge beside `cp` and PEFT.

    python benchmarks/new_base.py [--model whisper-large-v3-turbo] [--dtype float16] [--repetitions 3]

Each way runs in a fresh process that has torch (and PEFT) loaded before the clock starts; the files are in the page cache.
- ours: read and verify K adapters, average, merge into the changed tensors, write, fsync, hash, read back, commit.
- ours, not read back: the same without reading back what was written, which shows what that costs.
- cp: copy the whole checkpoint and fsync it, what any way that rewrites the checkpoint must do at least. No average, no hash.
- peft: merge each adapter with PEFT into its own copy of the model, average the copies, save; in the checkpoint's data type.
- peft, float32: the same with models loaded in float32, so that nothing is rounded before the end, as ours.

    python benchmarks/new_base.py --dtype float32 --shards 3 --ways ours cp        a sharded checkpoint in float32
    python benchmarks/new_base.py --model 7b --shards 3 --ways ours cp             6.7 billion parameters (a sparse file: zeros)
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import in_fresh_processes, peak_bytes, write_result
from turbo import LANGUAGE_MODEL, MODELS, write_adapter, write_checkpoint

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
NUM_ADAPTERS, LORA_R = 3, 32


def recorded_hashes(root: Path) -> Any:
    """Returns the sha256 of every tensor and of every file, which a run records once, when it begins."""
    from wfc_dist.storage import durable
    from wfc_dist.weights import base_chain

    known = root.parent / f"{root.name}-sha256.json"
    if not known.exists():
        files = {str(path): durable.sha256_file(path) for path in sorted(set(base_chain.weight_map(root).values()))}
        known.write_text(json.dumps([base_chain.hash_tensors(root), files]))
    return json.loads(known.read_text())


def ours(root: Path, adapters: list[Path], out: Path, is_read_back: bool = True) -> Callable[[], None]:
    from wfc_dist.centralize import apply, collectives
    from wfc_dist.centralize.rank import CentralizeJob, centralize_rank
    from wfc_dist.centralize.readback import Sources, require_as_computed
    from wfc_dist.rounds import Adapter, Base
    from wfc_dist.storage import durable
    from wfc_dist.weights.hashing import content_sha256
    from wfc_dist.weights.peft_folder import folder_sha256

    apply.return_freed_memory()  # as every rank's process does
    hashes, file_hashes = recorded_hashes(root)
    base = Base(0, str(root), content_sha256(hashes))
    found = tuple(Adapter(path.name, str(path), folder_sha256(path), base.sha256, 1.0) for path in adapters)

    def run() -> None:
        delta, staged = out / "delta.tmp-1", out / "base.tmp-1"
        delta.mkdir(parents=True)
        staged.mkdir()
        job = CentralizeJob(
            base=base, adapters=found, weights=(1.0,) * len(found), method="mean", scale=1.0, dtype="auto", root=str(root),
            shared=str(root), past_deltas=(), tensor_hashes=hashes, delta_dir=str(delta), base_dir=str(staged),
        )  # fmt: skip
        result = centralize_rank(job, collectives.Group())
        assert result is not None
        if is_read_back:
            require_as_computed(result, Sources(root, root, (), "auto"), hashes)
        facts: dict[str, Any] = dict(result.facts)
        durable.commit_folder(delta, out / "delta", {"round": 1}, known=facts["written"])
        links = {name: file_hashes[path] for name, path in facts["links"].items()}
        durable.commit_folder(staged, out / "base", facts, known=links | facts["written"])

    return run


def cp(root: Path, adapters: list[Path], out: Path) -> Callable[[], None]:
    from wfc_dist.storage import durable

    def run() -> None:
        shutil.copytree(root, out)
        for path in out.iterdir():
            durable.fsync_path(path)
        durable.fsync_path(out)

    return run


def peft_in(dtype: str) -> Callable[[Path, list[Path], Path], Callable[[], None]]:
    def make(root: Path, adapters: list[Path], out: Path) -> Callable[[], None]:
        from peft import PeftModel
        from transformers import WhisperForConditionalGeneration

        def run() -> None:
            merged = []
            for path in adapters:
                model = WhisperForConditionalGeneration.from_pretrained(root, dtype=dtype)
                merged.append(PeftModel.from_pretrained(model, str(path)).merge_and_unload())
            stored = WhisperForConditionalGeneration.from_pretrained(root).dtype
            with torch.no_grad():
                states = [model.state_dict() for model in merged]
                for name, tensor in states[0].items():
                    if tensor.is_floating_point():
                        tensor.copy_(sum(state[name].float() for state in states) / len(states))
            merged[0].to(stored).save_pretrained(out)

        return run

    return make


def not_read_back(root: Path, adapters: list[Path], out: Path) -> Callable[[], None]:
    return ours(root, adapters, out, is_read_back=False)


WAYS = {
    "ours": ours,
    "ours, not read back": not_read_back,
    "cp": cp,
    "peft": peft_in("auto"),
    "peft, float32": peft_in("float32"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="whisper-large-v3-turbo")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "wfc-benchmark")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model == LANGUAGE_MODEL and set(options.ways) - {"ours", "ours, not read back", "cp"}:
        parser.error("--model 7b needs --ways ours cp: three models in memory are more than most machines have")
    folder, name = (
        options.folder,
        f"{options.model}-{options.dtype}" + (f"-{options.shards}-shards" if options.shards > 1 else ""),
    )
    root = write_checkpoint(folder / name, options.model, DTYPES[options.dtype], options.shards)
    adapters = [write_adapter(folder / f"{options.model}-adapter-{n}", options.model, LORA_R, n) for n in range(NUM_ADAPTERS)]
    if options.only:
        out = folder / f"out-{options.only}"
        shutil.rmtree(out, ignore_errors=True)
        run = WAYS[options.only](root, adapters, out)
        start = time.monotonic()
        run()
        print(json.dumps({"seconds": time.monotonic() - start, "peak_bytes": peak_bytes()}))
        shutil.rmtree(out)
        return
    recorded_hashes(root)  # here: in a way's own process it would count as memory
    given = ["--model", options.model, "--dtype", options.dtype, f"--shards={options.shards}", "--folder", str(folder)]
    if options.model == LANGUAGE_MODEL:
        given += ["--ways", *options.ways]
    measured = in_fresh_processes(Path(__file__), options.ways, options.repetitions, *given)
    facts = {"model": options.model, "dtype": options.dtype, "num_adapters": NUM_ADAPTERS, "lora_r": LORA_R}
    command = " ".join(["python", "benchmarks/new_base.py", *sys.argv[1:]])
    write_result(f"new-base-{name}", f"new base: {name}, adapters to a committed base", measured, command=command, **facts)


if __name__ == "__main__":
    main()
