"""`wfc doctor` on real packages, sound and broken, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import jsonschema
import pytest
import tiny
from loopback import serving

from wfc_dist.doctor import sites
from wfc_dist.doctor.findings import as_json, as_text, in_one_line, is_healthy, ok, problem, warning
from wfc_dist.doctor.machine import check_machine
from wfc_dist.doctor.packages import check_packages
from wfc_dist.doctor.probes import run_probe
from wfc_dist.doctor.run import diagnose
from wfc_dist.reports.as_json import schema_of


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
def test_packages_that_cannot_be_imported_are_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "jiwer": (
            "raise ImportError('libcudart.so.12: cannot open shared object file')",
            "ImportError: libcudart.so.12: cannot open shared object file",
        ),
        "soxr": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        "matplotlib": ("import sys; sys.exit(3)", "SystemExit: 3"),
    }
    for name, (body, _) in broken.items():
        monkeypatch.setenv("PYTHONPATH", with_broken(tmp_path, name, body)["PYTHONPATH"])
    bad = {line for line in check_packages() if line.state == "problem" and line.topic in broken}  # others may import them
    assert bad == {
        problem(name, f"cannot be imported ({why})", f"pip install --force-reinstall {name}") for name, (_, why) in broken.items()
    }


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
    lines = list(check_machine(Path("/dev/shm/runs"), is_url=False, wants_gpu=False, must_share=True))
    (shm,) = [line for line in lines if line.topic == "run directory"]
    assert shm.state == "warning" and "tmpfs, of this machine only" in shm.what and "every node must see it" in shm.advice
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


@contextmanager
def hub_on_loopback() -> Iterator[tuple[str, list[str]]]:
    """A hub that has org/model, a gated one, and one that it hangs up for; yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', 'without a token')}")
            if "hangs-up" not in self.path:
                self.send_response(401 if "gated" in self.path else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *unused: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, asked


@pytest.mark.process
def test_the_hub_is_asked_only_if_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub_on_loopback() as (url, asked):
        monkeypatch.setenv("HF_ENDPOINT", f"{url}/")
        assert sites.check_hub("org/model", may_ask=False).state == "ok" and asked == []
        assert sites.check_hub("org/model", may_ask=True) == ok("hub", f"{url} answers (200), org/model is there")
        assert sites.check_hub(None, may_ask=True) == ok("hub", f"{url} answers (200)")
        gated = sites.check_hub("org/gated", may_ask=True)
        hung_up = sites.check_hub("org/hangs-up", may_ask=True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert sites.check_hub("org/model", may_ask=True).what.startswith("offline")
    assert (gated.state, gated.what) == ("warning", f"{url} answers 401 for org/gated") and "HF_TOKEN" in gated.advice
    assert hung_up.state == "warning" and f"{url} does not answer (Remote end closed connection" in hung_up.what
    assert asked == [f"/api/models{tail} without a token" for tail in ("/org/model", "?limit=1", "/org/gated", "/org/hangs-up")]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    gone = sites.check_hub(None, may_ask=True)  # the server is gone
    assert gone.state == "warning" and "Connection refused" in gone.what and "HF_HUB_OFFLINE=1" in gone.advice
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert "unknown url type" in sites.check_hub(None, may_ask=True).what


@pytest.mark.process
def test_the_whole_command_on_this_installation_prints_json_of_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]])
    capfd.readouterr()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub_on_loopback() as (url, asked):
        monkeypatch.setenv("HF_ENDPOINT", url)
        code = diagnose(config, ["cluster.backend=in_process"], json=True, may_ask=True)
    tree = json.loads(capfd.readouterr().out)
    jsonschema.validate(tree, schema_of("doctor"))
    lines = {line["topic"]: line for line in tree["findings"]}
    assert code == (0 if tree["healthy"] else 1) and len(asked) == 1
    assert {"python", "extras", "configuration", "run directory", "slurm", "model", "hub"} < lines.keys()
    assert lines["model"]["state"] == "ok" and lines["hub"]["what"] == f"{url} answers (200)"
