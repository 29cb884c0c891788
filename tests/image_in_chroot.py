"""Carries out launch/Dockerfile without a container engine: in folders that debootstrap makes, as root.

    python tests/image_in_chroot.py /var/tmp/image            # minutes, some 8 GB; needs root, debootstrap and Debian's mirror

It knows the instructions that the file has, and refuses any other. In the end it prints what the image's user sees.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

REPO = Path(__file__).parents[1]
SUITE = "bookworm"
SITE_CERTIFICATES = "/site-certificates.crt"  # those with which this machine reaches its package index, if it has its own
SEEN = """id -un; echo $HOME; touch $HOME/written; wfc --version; ls
bash -lc 'command -v wfc ray python'; ray --version; tini --version"""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yields the instructions of a Dockerfile: word and the rest, lines that go on joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


class Stage:
    """A root folder, and the environment, user and folder that the instructions so far have set."""

    def __init__(self, root: Path) -> None:
        self.root, self.variables, self.user, self.folder = root, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, "0", "/"
        subprocess.run(["debootstrap", "--variant=minbase", SUITE, root], check=True, stdout=subprocess.DEVNULL)
        for name in ("etc/resolv.conf", "etc/hosts"):
            shutil.copy(f"/{name}", root / name)

    def copy(self, sources: list[Path], target: str) -> None:
        """Copies as COPY does: into the folder where the target ends in a slash or several sources are named."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into = place / source.name if target.endswith("/") else place
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, into)

    def run(self, command: str, handed_on: Mapping[str, str]) -> None:
        """Runs a shell command as the user of the stage, with /proc and the devices of this machine."""
        mounted = [("proc", "proc"), ("devtmpfs", "dev")]
        for kind, name in mounted:
            subprocess.run(["mount", "-t", kind, "none", self.root / name], check=True)
        home = "/root" if self.user == "0" else f"/home/{self.user_name()}"
        environment = {**handed_on, **self.variables, "HOME": home}
        words = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root), "sh", "-c", f"cd {self.folder} && {command}"]
        try:
            subprocess.run(words, env=environment, check=True)
        finally:
            for _, name in mounted:
                subprocess.run(["umount", "--lazy", self.root / name], check=True)

    def user_name(self) -> str:
        """Returns the name of the stage's user."""
        users = {line.split(":")[2]: line.split(":")[0] for line in (self.root / "etc/passwd").read_text().splitlines()}
        return users[self.user]


def build(text: str, out: Path, handed_on: Mapping[str, str]) -> Stage:
    """Carries out the instructions and returns the last stage. Raises ValueError for an instruction that it does not know."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(text):
        print(f"--- {word} {rest}", flush=True)
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            stage = stages[name] = Stage(out / name)
            if "PIP_CERT" in os.environ:
                stage.copy([Path(os.environ["PIP_CERT"])], SITE_CERTIFICATES)
        elif word == "COPY" and stage is not None:
            *sources, target = [part for part in rest.split() if not part.startswith("--")]
            origin = re.match(r"--from=(\w+)", rest)
            base = stages[origin[1]].root if origin else REPO
            stage.copy([base / source.lstrip("/") for source in sources], target)
        elif word == "RUN" and stage is not None:
            stage.run(rest, handed_on)
        elif word == "ENV" and stage is not None:
            stage.variables |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "USER" and stage is not None:
            stage.user = rest
        elif word == "WORKDIR" and stage is not None:
            stage.folder = rest
        elif word in ("ENTRYPOINT", "CMD"):
            json.loads(rest)
        elif word != "ARG":
            raise ValueError(f"{word} {rest}: no instruction that this script knows")
    assert stage is not None
    return stage


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new folder for the stages")
    out = parser.parse_args().out
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("needs root and debootstrap")
    out.mkdir(parents=True)
    settings = {"PIP_INDEX_URL": os.environ["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in os.environ else {}
    settings |= {"PIP_CERT": SITE_CERTIFICATES} if "PIP_CERT" in os.environ else {}
    stage = build((REPO / "launch" / "Dockerfile").read_text(encoding="utf-8"), out.resolve(), settings)
    stage.run(SEEN, {})


if __name__ == "__main__":
    main()
