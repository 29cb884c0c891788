"""A function of the public interface leaves the process of its caller as it was."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import wfc_dist

CALLS = """
import gc, json, logging, os, random, signal, sys, threading, warnings
from pathlib import Path
import numpy as np, torch, transformers
import wfc_dist
from wfc_dist.log import NOISY

def of_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]

def state():
    umask = os.umask(0o22)
    os.umask(umask)
    flags = {name: getattr(torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    loggers = [logging.getLogger(name) for name in (None, "wfc_dist", *NOISY)]
    return {
        "threads": torch.get_num_threads(), "threads of new threads": of_a_new_thread(torch.get_num_threads),
        "torch's generator": torch.get_rng_state().tolist(), "Python's generator": random.getstate(),
        "NumPy's generator": [str(part) for part in np.random.get_state()],
        "torch's flags": [torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), str(torch.get_default_dtype()),
                          torch.get_float32_matmul_precision(), flags],
        "environment": dict(os.environ), "folder": os.getcwd(), "umask": umask,
        "loggers": [(log.name, log.level, log.propagate, log.disabled, str(log.filters)) for log in loggers],
        "handlers": [str(log.handlers) for log in loggers], "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "warnings": str(warnings.filters),
        "signals": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
        "process group": torch.distributed.is_initialized(), "collector": [gc.get_freeze_count(), gc.isenabled()],
        "hooks": [str(sys.excepthook), str(threading.excepthook)],
    }

def changed(call):
    before = state()
    result = call()
    after = state()
    return result, [name for name in before if before[name] != after[name]]

for name in wfc_dist.__all__:
    getattr(wfc_dist, name)  # what an import does is the library's
folder = Path(sys.argv[1])
config = wfc_dist.load_config(folder / "config.yaml", [f"cluster.backend={sys.argv[2]}", "run.name=" + sys.argv[2]])
torch.set_num_threads(3)
of_a_new_thread(lambda: torch.set_num_threads(5))
torch.manual_seed(17), random.seed(17), np.random.seed(17)
logging.getLogger("wfc_dist").addHandler(logging.NullHandler())
run_dir, found = config.run_dir(), {}
audio = next((folder / "a" / "audio").glob("test-*.flac"))
base_0 = lambda: wfc_dist.open_run(run_dir).base(0).path
adapters = [run_dir / "round-0001" / "adapters" / name for name in "ab"]
calls = {
    "load_config": lambda: wfc_dist.load_config(folder / "config.yaml"),
    "run": lambda: wfc_dist.run(config),
    "run, which is done": lambda: wfc_dist.run(config),
    "open_run": lambda: wfc_dist.open_run(run_dir).scores(),
    "evaluate": lambda: wfc_dist.evaluate(run_dir, config, threads=2),
    "load_model": lambda: wfc_dist.load_model(adapters[0]),
    "transcribe": lambda: list(wfc_dist.transcribe(run_dir, [audio], language="en")),
    "average": lambda: wfc_dist.average(adapters, folder / "delta", method="dare"),
    "merge": lambda: wfc_dist.merge(base_0(), folder / "delta", folder / "merged"),
    "rebuild": lambda: wfc_dist.rebuild(run_dir, 1, folder / "rebuilt"),
    "export": lambda: wfc_dist.export(run_dir, "safetensors", folder / "exported"),
    "read_delta": lambda: wfc_dist.read_delta(folder / "delta"),
    "read_factors": lambda: wfc_dist.read_factors(adapters[0]),
}
def call_all():
    for name in sys.argv[4:] or calls:
        found[name] = changed(calls[name])[1]
    print(json.dumps(found))

if sys.argv[3] == "main":
    call_all()
else:
    thread = threading.Thread(target=call_all)
    thread.start()
    thread.join()
"""


def changes(folder: Path, *words: str) -> dict[str, list[str]]:
    """Returns function -> what it changed in a process that calls the functions one after the other."""
    tiny.make_config(folder, rounds=[["a", "b"], ["c"]])
    command = [sys.executable, "-c", CALLS, str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.process
def test_every_public_function_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    found = changes(tmp_path, "in_process", "main")
    verbs = {word.partition(",")[0] for word in found}
    pure = {"merged_update"}
    assert verbs >= {name for name in wfc_dist.__all__ if inspect.isfunction(getattr(wfc_dist, name))} - pure
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.process
@pytest.mark.parametrize("backend", ["in_process", "ray"])
def test_a_run_works_outside_the_main_thread_where_no_signal_can_be_caught(tmp_path: Path, backend: str) -> None:
    assert changes(tmp_path, backend, "other", "run") == {"run": []}
    assert wfc_dist.open_run(tmp_path / "runs" / backend).status().state == "done"
