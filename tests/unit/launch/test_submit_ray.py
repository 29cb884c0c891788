"""The job launcher without a cluster, and the files to copy in launch/."""

import asyncio
import json
import re
import shlex
import types
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer.main
import yaml
from loopback import serving
from ray.job_submission import JobStatus
from ray.runtime_env import RuntimeEnv

from wfc_dist.cli.commands import app
from wfc_dist.config import loading
from wfc_dist.errors import ConfigError
from wfc_dist.launch import ray_client, submit_ray

REPO = Path(__file__).resolve().parents[3]
LAUNCH = REPO / "launch"


def job(submission_id: str, run: str, status: str = "RUNNING", code: int | None = None, **facts: Any) -> types.SimpleNamespace:
    number = submission_id.rpartition("-")[2]
    return types.SimpleNamespace(
        submission_id=submission_id, metadata={"wfc_run": run, "wfc_attempt": number}, status=JobStatus(status),
        driver_exit_code=code, **{"start_time": 0, "message": "", **facts},
    )  # fmt: skip


class Listing:
    """A job client that only lists."""

    def __init__(self, *jobs: types.SimpleNamespace) -> None:
        self._jobs = jobs

    def list_jobs(self) -> list[types.SimpleNamespace]:
        return list(self._jobs)


def test_the_exit_code_is_wfcs_own() -> None:
    codes = {
        ("SUCCEEDED", 0): 0, ("FAILED", 75): 75, ("FAILED", 2): 2, ("FAILED", 1): 1, ("FAILED", -9): 137,
        ("STOPPED", None): 75, ("FAILED", None): 1,
    }  # fmt: skip
    for (status, code), expected in codes.items():
        assert ray_client.exit_code(job("wfc-x-1", "/r/x", status, code)) == expected
    assert "interrupted" in ray_client.describe(job("wfc-x-1", "/r/x", "FAILED", 75))
    assert "no such image" in ray_client.describe(job("wfc-x-1", "/r/x", "FAILED", message="no such image"))


def test_attempts_of_one_name_never_share_an_id() -> None:
    jobs = [job("wfc-x-1", "/r/x"), job("wfc-x-12", "/other/x"), job("wfc-y-40", "/r/y"), job("wfc-x-y-50", "/r/x-y")]
    assert ray_client.next_attempt("x", []) == 1
    assert ray_client.next_attempt("x", jobs) == 13
    assert ray_client.next_attempt("x-y", jobs) == 51


def test_a_run_is_found_by_name_folder_and_job() -> None:
    stray = types.SimpleNamespace(submission_id=None, metadata=None, start_time=9)  # a driver that was no job
    jobs = Listing(stray, job("wfc-x-2", "/r/x", start_time=5), job("wfc-x-1", "/r/x", start_time=1), job("wfc-y-1", "s3://b/y"))
    for name in ("x", "/r/x", "/r/x/"):
        assert ray_client.find(jobs, name).submission_id == "wfc-x-2"
    assert ray_client.find(jobs, "wfc-x-1").submission_id == "wfc-x-1"
    assert ray_client.find(jobs, "s3://b/y").submission_id == "wfc-y-1"
    with pytest.raises(ConfigError, match=r"known: /r/x, s3://b/y"):
        ray_client.find(jobs, "z")
    with pytest.raises(ConfigError, match=r"several runs .* /other/x, /r/x"):
        ray_client.find(Listing(job("wfc-x-1", "/r/x"), job("wfc-x-2", "/other/x")), "x")


def test_a_run_is_found_by_its_configuration_whatever_folder_was_given() -> None:
    config = str(REPO / "configs" / "example.yaml")  # its run.dir is relative, and was another one when it was submitted
    assert ray_client.find(
        Listing(job("wfc-code-switching-1", "/shared/runs/code-switching")), submit_ray.named(config)
    ).submission_id
    assert submit_ray.named("/r/x") == "/r/x"


def test_what_a_job_would_not_see_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    config = REPO / "configs" / "example.yaml"
    assert (
        submit_ray.shared_run_dir(loading.load_config(config, ["run.dir=s3://bucket/runs/"])) == "s3://bucket/runs/code-switching"
    )
    with pytest.raises(ConfigError, match=r"run.dir: 'runs' is relative"):
        submit_ray.shared_run_dir(loading.load_config(config))
    command = submit_ray.entry_command(config, REPO, ["run.dir=/my runs"])
    assert command == "python -m wfc_dist run configs/example.yaml 'run.dir=/my runs' --plain"
    with pytest.raises(ConfigError, match="not inside --working-dir"):
        submit_ray.entry_command(config, tmp_path, [])


def test_overrides_may_stand_behind_options() -> None:
    options = submit_ray.parse_arguments(["submit", "c.yaml", "a.b=1", "--no-follow", "c.d=2"])
    assert options.overrides == ["a.b=1", "c.d=2"] and options.no_follow
    with pytest.raises(SystemExit):
        submit_ray.parse_arguments(["submit", "c.yaml", "--no-folow"])
    with pytest.raises(SystemExit):
        submit_ray.parse_arguments(["stop", "x", "a.b=1"])


def test_the_working_directory_carries_code_and_nothing_large() -> None:
    paths = {path.relative_to(REPO).as_posix() for path in ray_client.packed_files(REPO, [".git", ".venv", "__pycache__"])}
    assert {
        "wfc_dist/cli/__init__.py",
        "wfc_dist/data/sources.py",
        "configs/example.yaml",
        "launch/submit_ray.py",
        "constraints.txt",
    } <= paths
    assert not [path for path in paths if path.startswith((".git/", "runs/", "models/", "tests/", "examples/demo/data/"))]
    assert sum((REPO / path).stat().st_size for path in paths) < 5 * 2**20


def test_a_large_working_directory_is_named_not_packed(tmp_path: Path) -> None:
    for name, size in (("corpus", 90), ("old-run", 20)):
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "file", "wb") as file:
            file.truncate(size * 2**20)
    with pytest.raises(ConfigError, match=r"larger than the 100 MiB .* corpus 90 MiB, old-run 20 MiB"):
        ray_client.check_size(tmp_path)
    (tmp_path / ".rayignore").write_text("/corpus/\n")
    ray_client.check_size(tmp_path)


@pytest.fixture
def dashboard() -> Iterator[tuple[str, dict[str, Any]]]:
    """Something that answers like a Ray dashboard: its address, and the answer to change."""
    answer: dict[str, Any] = {"status": 200, "body": {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *unused: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, answer


@pytest.mark.process
def test_what_the_cluster_says_becomes_one_line(
    dashboard: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    address, answer = dashboard
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # --address comes first
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for status, body, expected in (
        (200, {"version": "4", "ray_version": "2.40.0"}, r"runs Ray 2\.40\.0, this machine has .*ray\[default\]==2\.40\.0"),
        (401, "Unauthorized: Missing authentication token", "wants a token and got none; set RAY_AUTH_TOKEN"),
        (403, "Forbidden: Invalid authentication token", "refuses the token of RAY_AUTH_TOKEN; set"),
        (404, "nothing here", "Version check returned 404"),
        (500, "broken", "Ray's job API: 500 Server Error"),
    ):
        answer.update(status=status, body=body)
        assert submit_ray.main(["status", "--address", address]) == 2
        said = capsys.readouterr().err
        assert re.search(expected, said) and said.count("\n") == 1, said


class Talking:
    """A job client whose connections break in different ways, one after another."""

    def __init__(self, *connections: str, details: types.SimpleNamespace) -> None:
        self._connections, self._details = list(connections), details

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        how = self._connections.pop(0)
        for line in ("one\n", "two\n"):
            yield line
            if how == "breaks":
                raise ConnectionResetError("gone")
            if how == "hangs":
                await asyncio.sleep(3600)
        yield "three\n"

    def get_job_info(self, job_id: str) -> types.SimpleNamespace:
        return self._details

    def get_job_logs(self, job_id: str) -> str:
        return "one\ntwo\nthree\n"


def test_following_survives_connections_that_break_or_hang(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_ray, "SILENCE_S", 0.05)
    monkeypatch.setattr(submit_ray, "POLL_S", 0.01)
    for connections in (("whole",), ("breaks", "whole"), ("hangs",), ("breaks", "hangs")):
        client = Talking(*connections, details=job("wfc-x-1", "/r/x", "FAILED", 75))
        assert submit_ray.follow(client, "wfc-x-1", "http://head:8265") == 75
        assert capsys.readouterr().out == "one\ntwo\nthree\n", connections


@pytest.mark.process
def test_an_address_where_nobody_is(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("http://127.0.0.1:1", "127.0.0.1:6379", "ray://127.0.0.1:10001", "http://127.0.0.1:no"):
        assert submit_ray.main(["status", "--address", address]) == 2
        assert f"no Ray dashboard answers at {address}" in capsys.readouterr().err


RAY = re.search(r"^ray==(.*)$", (REPO / "constraints.txt").read_text(), re.M)
assert RAY is not None


def check_wfc_run(words: list[str]) -> loading.Config:
    """Parses a `wfc run` command line as the command itself would, and loads the configuration it names."""
    assert words[:2] == ["wfc", "run"]
    command = typer.main.get_command(app)
    run = command.get_command(command.make_context("wfc", ["run"], resilient_parsing=True), "run")  # type: ignore[attr-defined]
    context = run.make_context("run", words[2:])
    return loading.load_config(REPO / context.params["config"], context.params["overrides"] or [])


def test_the_aws_cluster_is_one_ray_accepts() -> None:
    text = (LAUNCH / "ray-cluster-aws.yaml").read_text()
    cluster = yaml.safe_load(text)
    jsonschema.validate(cluster, json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text()))

    assert cluster["head_node_type"] in cluster["available_node_types"]
    workers = cluster["available_node_types"]["gpu-spot"]
    assert workers["min_workers"] <= workers["max_workers"] <= cluster["max_workers"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert f"ray{RAY[1]}" in cluster["docker"]["image"]
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    (submit,) = re.findall(r"wfc launch ray (submit .*)", text)
    options = submit_ray.parse_arguments(shlex.split(submit))
    config = loading.load_config(REPO / "configs" / "example.yaml", options.overrides)
    assert config.cluster.on_drain == "move" and config.cluster.wait_for_nodes == workers["min_workers"] + 1
    assert submit_ray.shared_run_dir(config).startswith("s3://")


def test_the_rayjob_runs_a_command_wfc_accepts() -> None:
    account, rayjob = yaml.safe_load_all((LAUNCH / "kuberay-rayjob.yaml").read_text())
    spec, groups = rayjob["spec"], rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pods = [spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"], *(group["template"]["spec"] for group in groups)]

    config = check_wfc_run(shlex.split(spec["entrypoint"]))
    assert config.run.dir.startswith("s3://") and config.cluster.on_drain == "move"
    assert config.cluster.wait_for_nodes == 1 + sum(group["replicas"] for group in groups)
    assert spec["rayClusterSpec"]["rayVersion"] == RAY[1]
    assert {container["image"] for pod in pods for container in pod["containers"]} == {f"REGISTRY/wfc-dist:ray{RAY[1]}"}
    assert {pod["serviceAccountName"] for pod in pods} == {account["metadata"]["name"]}
    for pod in pods:
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"shm": "/dev/shm"} and pod["volumes"][0]["emptyDir"]["medium"] == "Memory"
    hook = groups[0]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-1].startswith("ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION ")


def test_runtime_environments_are_ones_ray_accepts(tmp_path: Path) -> None:
    pip = submit_ray.read_runtime_env(LAUNCH / "runtime-env-pip.yaml", None)
    container = submit_ray.read_runtime_env(LAUNCH / "runtime-env-container.yaml", None)
    assert "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}[deepspeed]" in RuntimeEnv(**pip)["pip"]["packages"]
    assert RuntimeEnv(**container)["image_uri"] == f"REGISTRY/wfc-dist:ray{RAY[1]}"
    (tmp_path / "list.yaml").write_text("[pip]")
    with pytest.raises(ConfigError, match="expected keys of Ray's runtime_env"):
        submit_ray.read_runtime_env(tmp_path / "list.yaml", None)
    with pytest.raises(ConfigError, match="does not exist"):
        submit_ray.read_runtime_env(None, tmp_path / "requirements.txt")
    assert f"REGISTRY/wfc-dist:ray{RAY[1]}" in (LAUNCH / "Dockerfile").read_text()
