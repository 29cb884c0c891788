"""launch/submit_slurm.py without a cluster: the command it renders, and the mistakes it names."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wfc_dist.config import loading
from wfc_dist.launch import submit_slurm

REPO = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden" / "launch-slurm.txt"
COMMANDS = [
    "configs/demo.yaml",
    "--nodes=6 --gpus-per-node=4 --time=12:00:00 --partition=gpu --account=speech configs/demo.yaml train.lr=1e-4",
    "--sbatch=--constraint=a100 --sbatch=--exclusive --job-name=mine --cpus-per-task=8 --mem=64G configs/demo.yaml",
    "--per-adapter --partition=gpu --qos=long --time=3-00:00:00 configs/demo.yaml cluster.slurm.partition=small",
]


def rendered(line: str) -> str:
    options = submit_slurm.parse_arguments(shlex.split(line))
    config = loading.load_config(REPO / options.config, options.overrides)
    return shlex.join(submit_slurm.render(options, config, Path("slurm")))


def test_commands_are_the_golden_ones() -> None:
    lines = [f"$ launch/submit_slurm.py {line}\n{rendered(line)}\n" for line in COMMANDS]
    assert "".join(lines) == GOLDEN.read_text()


@pytest.mark.process
@pytest.mark.parametrize(("script", "output"), [("round.sh", "wfc-%j"), ("per-adapter.sh", "wfc-coordinator-%j")])
def test_the_scripts_it_submits_are_there_and_requeue(script: str, output: str) -> None:
    path = REPO / "slurm" / script
    text = path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)
    for flag in ("--requeue", "--open-mode=append", f"--output=logs/{output}.out", "--signal=B:USR1@"):
        assert f"#SBATCH {flag}" in text


def test_the_size_of_one_large_job_is_refused_for_many_small_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        submit_slurm.parse_arguments(["--per-adapter", "--gpus-per-node=2", "configs/demo.yaml"])
    assert ended.value.code == 2 and "--gpus-per-node belongs to one large job" in capsys.readouterr().err


def run(*arguments: object, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPO / "launch" / "submit_slurm.py"), *map(str, arguments)], cwd=REPO,
        capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False,
    )  # fmt: skip


@pytest.mark.process
def test_without_slurm_it_says_so_and_what_else_there_is(tmp_path: Path) -> None:
    done = run("--dry-run", "configs/demo.yaml", path=str(tmp_path))
    assert done.returncode == 2 and done.stdout.startswith("sbatch --job-name=wfc-demo ")
    assert "there is no Slurm here (no sbatch, srun" in done.stderr and "wfc launch ray" in done.stderr


@pytest.mark.process
def test_a_wrong_configuration_is_named_before_slurm_is_asked(tmp_path: Path) -> None:
    tree = yaml.safe_load((REPO / "configs" / "demo.yaml").read_text()) | {"trian": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    done = run(tmp_path / "config.yaml", path=str(tmp_path))
    assert done.returncode == 2 and "did you mean 'train'?" in done.stderr and "Slurm" not in done.stderr


@pytest.mark.process
def test_it_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys; runpy.run_path('launch/submit_slurm.py', run_name='x'); "
        "print(*[name for name in ('torch', 'ray', 'transformers', 'submitit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_log_is_printed_once_and_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out"
    tail = submit_slurm.LogTail(path)
    assert tail.new() == ""
    path.write_text("one\ntw")
    assert tail.new() == "one\n"
    path.write_text("one\ntwo\n")
    assert (tail.new(), tail.new()) == ("two\n", "")
