"""How wfc_dist is installed: extras, stated versions and images agree with each other and with what the tests run with."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from image_in_chroot import build, instructions

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "install.md").read_text(encoding="utf-8")
DOCKERFILE = (REPO / "launch" / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (REPO / "launch" / "wfc_dist.def").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def test_the_page_has_a_row_for_every_extra(project: dict[str, Any]) -> None:
    rows = {name for cell in re.findall(r"^\| (`[^|]*) \|", PAGE, re.M) for name in re.findall(r"`(\w+)`", cell)}
    assert rows - {"launch"} == set(project["optional-dependencies"])


def test_all_has_what_the_page_says(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.findall(r"[\w]+", everything.partition("[")[2])) | {"ct2", "mlflow", "wandb", "docs", "dev", "all"} == set(
        extras
    )


def test_heavy_packages_that_few_runs_need_are_optional(project: dict[str, Any]) -> None:
    core = " ".join(project["dependencies"])
    assert not re.search(r"deepspeed|submitit|s3fs|gcsfs|\bav\b|ctranslate2|gradio|tensorboard", core) and "torch" in core


def test_the_stated_versions_are_those_of_the_tests() -> None:
    pinned = dict(re.findall(r'^(\w+)==([\d.]+)(?: ; python_version >= "3\.11")?$', (REPO / "constraints.txt").read_text(), re.M))
    (row,) = re.findall(r"^\| all tests \| (.*) \|$", PAGE, re.M)
    stated = {name.lower(): number for name, number in re.findall(r"(\w+) ([\d.]+)", row)}
    stated.pop("python")
    assert len(stated) == 8
    assert {name: ".".join(pinned[name].split(".")[:2]) for name in stated} == stated


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the versions that CI installs on Python 3.11")
@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "accelerate", "ray"])
def test_the_constraints_are_what_is_installed(name: str) -> None:
    assert f"\n{name}=={version(name).partition('+')[0]}" in (REPO / "constraints.txt").read_text()


def test_resolving_covers_the_stated_pythons(project: dict[str, Any]) -> None:
    (releases,) = re.findall(r"for python in ([\d. ]+);", (REPO / "Makefile").read_text())
    minors = [release.rpartition(".")[0] for release in releases.split()]
    assert project["requires-python"] == f">={minors[0]}"
    assert "Python 3.10 to 3.14" in PAGE and minors == [f"3.{minor}" for minor in range(10, 15)]
    assert [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line] == minors


def test_the_image_is_no_roots_has_tini_and_copies_what_is_there() -> None:
    found = list(instructions(DOCKERFILE))
    assert [rest for word, rest in found if word == "USER"] == ["1000"]  # a number, as runAsNonRoot of Kubernetes wants it
    assert ("ENTRYPOINT", '["tini", "-g", "--"]') in found
    copied = [rest.split()[:-1] for word, rest in found if word == "COPY" and "--from" not in rest]
    ignored = (REPO / ".dockerignore").read_text().splitlines()
    for name in (name for names in copied for name in names):
        assert (REPO / name).exists() and f"!{name}" in ignored


def installed_by(text: str) -> tuple[set[str], list[str]]:
    """Returns the Debian packages, and the arguments of pip, that the last stage of an image installs."""
    debian = re.findall(r"--no-install-recommends ([^&\n]+)", text)[-1]
    return set(debian.split()), re.findall(r"pip install ([^&\n]+?) *(?:&&|$)", text, re.M)


def test_both_images_install_the_same_libraries() -> None:
    docker, by_pip = installed_by("\n".join(f"{word} {rest}" for word, rest in instructions(DOCKERFILE)))
    apptainer, also_by_pip = installed_by(DEFINITION)
    assert docker - apptainer == {"rsync", "tini", "wget"} and apptainer < docker
    assert by_pip == also_by_pip and len(by_pip) == 2 and "[deepspeed,slurm,s3,gcs,av]" in by_pip[1]


@pytest.mark.process
def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    # DL3008: a suite of Debian holds its versions. SC2016: the profile's own shell expands $PATH.
    command = [str(program), "--ignore", "DL3008", "--ignore", "SC2016", str(REPO / "launch" / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_instruction_that_the_script_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"HEALTHCHECK .* knows"):
        build("ARG BASE=x\nHEALTHCHECK CMD true\n", tmp_path, {})
    assert list(instructions("# a\nRUN a \\\n# no\n    && b\n\nUSER 1\n")) == [("RUN", "a && b"), ("USER", "1")]
