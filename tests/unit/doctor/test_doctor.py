"""`wfc doctor` on real packages, sound and broken, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from wfc_dist.doctor import sites
from wfc_dist.doctor.findings import as_json, as_text, in_one_line, is_healthy, ok, problem, warning
from wfc_dist.doctor.machine import check_machine
from wfc_dist.doctor.packages import check_packages
from wfc_dist.doctor.probes import run_probe


def test_lines_say_state_topic_and_what_to_do() -> None:
    found = [ok("python", "3.11"), warning("disk", "3 GiB are free"), problem("torch", "is missing", "pip install torch")]
    assert as_text(found).splitlines() == [
        "ok       python  3.11", "warning  disk    3 GiB are free", "problem  torch   is missing: pip install torch",
        "1 problems, 1 warnings",
    ]  # fmt: skip
    assert json.loads(as_json(found)) == {
        "healthy": False,
        "findings": [
            {"state": "ok", "topic": "python", "what": "3.11", "advice": ""},
            {"state": "warning", "topic": "disk", "what": "3 GiB are free", "advice": ""},
            {"state": "problem", "topic": "torch", "what": "is missing", "advice": "pip install torch"},
        ],
    }
    assert not is_healthy(found) and is_healthy(found[:2])
    assert in_one_line("a\n b  c") == "a b c" and len(in_one_line("x" * 1000)) < 320


def with_broken(folder: Path, name: str, body: str) -> dict[str, str]:
    """Puts a package in front of the real one; returns the environment that finds it."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(body)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "raise ImportError('libcudart.so.12: cannot open shared object file')",
            "ImportError: libcudart.so.12: cannot open shared object file",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", with_broken(tmp_path, "jiwer", body)["PYTHONPATH"])
    bad = [line for line in check_packages() if line.state == "problem"]
    assert bad == [problem("jiwer", f"cannot be imported ({why})", "pip install --force-reinstall jiwer")]


@pytest.mark.process
def test_the_command_starts_where_its_own_packages_are_broken(tmp_path: Path) -> None:
    environment = with_broken(tmp_path, "typer", "raise ImportError('typer is broken')")
    done = subprocess.run(
        [sys.executable, "-m", "wfc_dist", "doctor", "--no-such"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2 and "usage: wfc doctor [CONFIG" in done.stderr, done.stderr
    other = subprocess.run(
        [sys.executable, "-m", "wfc_dist", "status"], capture_output=True, text=True, env=environment, check=False
    )
    assert other.returncode == 1 and "typer is broken" in other.stderr


@pytest.mark.process
def test_a_probe_that_hangs_is_ended() -> None:
    told, why = run_probe("imports", "asyncio", "json", timeout_s=0.01)
    assert told == [] and why == "took longer than 0.01 s"


@pytest.mark.process
def test_this_machine_and_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    lines = list(check_machine(tmp_path / "runs" / "x", is_url=False, wants_gpu=True))
    assert {line.topic for line in lines} >= {"processor", "torch", "gpu", "memory", "home", "run directory", "disk"}
    assert next(line for line in lines if line.topic == "torch").state == "ok"
    lines = list(check_machine(Path("/proc/1"), is_url=False, wants_gpu=False))
    assert any(line.state == "problem" and line.topic == "run directory" for line in lines)


@pytest.mark.process
def test_object_storage_and_model_of_a_configuration(tmp_path: Path) -> None:
    assert sites.check_objects(f"file://{tmp_path}/store") == ok(
        "object storage", f"file://{tmp_path}/store: list, write, read, delete one small object"
    )
    assert not list((tmp_path / "store").glob("*")), "nothing is left"
    (tmp_path / "file").write_text("")
    assert sites.check_objects(f"file://{tmp_path}/file/x").state == "problem"
    model = tiny.make_whisper(tmp_path / "model")
    assert run_probe("model", str(model), timeout_s=120)[1] == ""
    (model / "config.json").unlink()
    assert "config.json" in run_probe("model", str(model), timeout_s=120)[1]


@pytest.mark.process
def test_packages_of_this_installation() -> None:
    lines = {line.topic: line for line in check_packages()}
    assert lines["python"].state == "ok" and "extras" in lines
