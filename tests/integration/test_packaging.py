"""The built package: wheel and sdist agree, carry what the repository has, and work alone, outside a checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

import wfc_dist

REPO = Path(__file__).parents[2]
WHISPER = REPO / "models" / "whisper-base"
OPTIONAL = ["deepspeed", "submitit", "s3fs", "gcsfs", "av", "ctranslate2", "faster_whisper", "tensorboard", "gradio"]
pytestmark = pytest.mark.slow
Wfc = Callable[..., subprocess.CompletedProcess[str]]


def call(*command: object, cwd: Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def build(source: Path, out: Path, *what: str) -> list[Path]:
    call(sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", out, source, cwd=out.parent)
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, or would take, as a clone has them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("checkout") / "wfc"
    for name in listed.stdout.split("\0")[:-1]:
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPO / name).read_bytes())
            (folder / name).chmod((REPO / name).stat().st_mode)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    (built,) = build(checkout, checkout.parent / "wheel", "--wheel")
    return built


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    (built,) = build(checkout, checkout.parent / "sdist", "--sdist")
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_the_package_and_the_three_folders_and_nothing_else(checkout: Path, wheel: Path) -> None:
    expected = {path.relative_to(checkout).as_posix(): path for path in (checkout / "wfc_dist").rglob("*") if path.is_file()}
    for folder in ("configs", "launch", "slurm"):
        expected |= {f"wfc_dist/shipped/{folder}/{path.name}": path for path in (checkout / folder).iterdir()}
    packed = {name: data for name, data in contents(wheel).items() if ".dist-info/" not in name}
    assert packed == {name: path.read_bytes() for name, path in expected.items()}
    assert "wfc_dist/py.typed" in packed and "wfc_dist/shipped/slurm/round.sh" in packed


def test_the_sdist_builds_the_same_wheel_and_has_the_tests(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "unit" / "test_layers.py").is_file() and (source / "constraints.txt").is_file()
    (again,) = build(source, tmp_path / "wheel", "--wheel")
    assert again.name == wheel.name and contents(again) == contents(wheel) and again.read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment of its own: the wheel, and the dependencies of this Python without any extra."""
    bin_folder = environment(tmp_path_factory.mktemp("environment"), "--without-pip")
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin_folder / "python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=REPO.parent,
    )
    return bin_folder


def environment(folder: Path, *options: str) -> Path:
    """Makes an environment with the dependencies of this Python, but neither wfc_dist nor an extra; returns its programs."""
    call(sys.executable, "-m", "venv", *options, folder / "venv", cwd=folder)
    (folder / "dependencies").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("wfc_dist", "__editable__", "_wfc_dist", "pip")):
            (folder / "dependencies" / path.name).symlink_to(path)
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for path in own.glob("*setuptools*"):  # the venv's may be older than torch wants; the dependencies have another
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (own / "dependencies.pth").write_text(f"{folder / 'dependencies'}\n")  # searched after its own packages
    hidden = "".join(f"sys.modules[{package!r}] = None\n" for package in OPTIONAL)  # importing one raises
    (own / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    return folder / "venv" / "bin"


def test_it_is_the_wheel_that_is_imported(installed: Path, tmp_path: Path) -> None:
    code = "import wfc_dist, importlib.metadata as m; print(wfc_dist.__file__, m.version('wfc-dist'))"
    file, version = call(installed / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert Path(file).is_relative_to(installed.parent) and version == wfc_dist.__version__


def test_the_commands_hand_out_what_a_clone_has(installed: Path, tmp_path: Path) -> None:
    wfc = installed / "wfc"
    assert call(wfc, "files", "slurm/round.sh", cwd=tmp_path).stdout == (REPO / "slurm" / "round.sh").read_text()
    written = call(wfc, "files", "--out", ".", cwd=tmp_path).stdout.split()
    assert written == call(wfc, "files", cwd=tmp_path).stdout.split() and len(written) > 15
    assert {name: (tmp_path / name).read_bytes() for name in written} == {name: (REPO / name).read_bytes() for name in written}
    call(wfc, "config", "show", "configs/example.yaml", cwd=tmp_path)
    for script, command in (("submit_ray", "ray"), ("submit_slurm", "slurm"), ("drain_on_spot_notice", "spot-notice")):
        by_script = call(installed / "python", f"launch/{script}.py", "--help", cwd=tmp_path).stdout
        by_command = call(wfc, "launch", command, "--help", cwd=tmp_path).stdout
        assert by_script.startswith(f"usage: python launch/{script}.py") and by_command.startswith(f"usage: wfc launch {command}")


def test_slurm_gets_the_script_of_the_installed_package(installed: Path, tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]])
    environment = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
    command = [installed / "wfc", "launch", "slurm", "--dry-run", config]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no Slurm here" in done.stderr
    script = Path(done.stdout.split()[2])
    assert script.is_relative_to(installed.parent) and script.read_bytes() == (REPO / "slurm" / "round.sh").read_bytes()


def test_a_whole_run_and_its_report_need_no_checkout(installed: Path, tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a", "b"]])
    done = call(installed / "wfc", "run", config, "--plain", cwd=tmp_path)
    assert done.stdout.strip().endswith("base-0001")
    page = tmp_path / "runs" / "tiny" / "report" / "index.html"
    assert page.is_file() and "</html>" in page.read_text()


@pytest.mark.parametrize(
    ("command", "extra", "override"),
    [
        ("plan", "deepspeed", "train.strategy=zero3"),
        ("run", "slurm", "cluster.backend=slurm"),
        ("run", "s3", "run.dir=s3://bucket/runs"),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line_and_starts_nothing(
    command: str, extra: str, override: str, installed: Path, tmp_path: Path
) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]])
    before = sorted(tmp_path.rglob("*"))
    done = call(installed / "wfc", command, config, override, cwd=tmp_path, expected=2)
    assert f"pip install 'wfc-dist[{extra}]'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def few_clips(out: Path) -> None:
    """Copies four clips of each split of the demo, and the clip that the page transcribes."""
    for folder in (path for path in (REPO / "examples" / "demo" / "data").iterdir() if path.is_dir()):
        (out / folder.name / "audio").mkdir(parents=True)
        for manifest in folder.glob("*.jsonl"):
            lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = lines[:4] + [line for line in lines[4:] if "agent-alreadyon.opus" in line]
            (out / folder.name / manifest.name).write_text("".join(kept), encoding="utf-8")
            for name in (json.loads(line)["audio_filepath"] for line in kept):
                shutil.copyfile(folder / name, out / folder.name / name)


@pytest.mark.skipif(not (WHISPER / "config.json").is_file(), reason="make test downloads whisper-base")
def test_the_first_page_can_be_followed_word_for_word(wheel: Path, tmp_path: Path) -> None:
    """Runs every line of the page in order, in an environment without wfc_dist and in an empty folder; there is little speech."""
    page = (REPO / "docs" / "get-started.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) >= 6 and blocks[0].startswith("pip install wfc-dist\n")
    bin_folder = environment(tmp_path)
    few_clips(tmp_path / "sources" / "examples" / "demo" / "data")
    (tmp_path / "empty").mkdir()
    settings = {
        "PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(tmp_path), "MODEL": str(WHISPER), "SOURCES": str(tmp_path / "sources"),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": "/dev/null",
    }  # fmt: skip
    command = ["bash", "-euo", "pipefail", "-xc", "".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path / "empty", env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"wfc_dist {wfc_dist.__version__}\n" in done.stdout and "Successfully installed wfc-dist" in done.stdout
    left = tmp_path / "empty"
    assert (left / "runs" / "first" / "report" / "index.html").is_file() and (left / "first-base" / "config.json").is_file()
    assert list((left / "subtitles").glob("*.srt"))
