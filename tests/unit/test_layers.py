"""The house: which folder may import which, no circles of imports, and light modules that stay light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "wfc_dist"
SCRIPTS = [path for folder in ("launch", "benchmarks") for path in sorted((PACKAGE.parent / folder).rglob("*.py"))]
EVERYBODYS = {"errors", "seeds", "rounds", "caller", "activity"}
MAY_IMPORT = {
    "errors": "",
    "caller": "",
    "activity": "",
    "seeds": "",
    "rounds": "",
    "stream": "",
    "storage": "",
    "merging": "",
    "log": "storage",
    "config": "merging storage",
    "weights": "merging storage",
    "runs": "weights config storage log merging",
    "data": "config",
    "centralize": "runs weights config merging storage log",
    "evaluation": "data runs weights config storage log",
    "training": "evaluation data runs weights config storage log",
    "progress": "training",
    "analysis": "training data runs weights merging config storage",
    "backends": "training evaluation centralize data runs weights config merging storage log progress",
    "tracking": "runs config storage log",
    "coordinator": "tracking backends training evaluation centralize data runs weights config merging storage log progress"
    " stream",
    "compare": "coordinator backends evaluation data runs weights config merging storage log progress",
    "exporting": "evaluation data runs weights config storage log",
    "launch": "backends runs config",
    "doctor": "tracking backends weights config storage",
    "tryout": "evaluation data runs weights config storage log",
    "reports": "doctor exporting compare coordinator backends analysis evaluation runs data config storage log progress",
    "cli": "launch doctor tryout reports exporting compare coordinator backends analysis training evaluation centralize data runs"
    " weights config merging storage log progress",
    "__main__": "cli",
}
"""Folder, or file at the top -> what it may import besides EVERYBODYS and itself. docs/architecture.md shows it as a table."""
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")
}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Returns the modules of the package that a module imports anywhere in its text, also inside functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wfc_dist":
            origin = node.module.removeprefix("wfc_dist").removeprefix(".")  # type: ignore[union-attr]
            names = {f"{origin}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in MODULES else origin for name in names}
        elif isinstance(node, ast.Import):
            names = {alias.name.removeprefix("wfc_dist.") for alias in node.names if alias.name.startswith("wfc_dist.")}
            found |= names & MODULES.keys()
    return frozenset(found - {"", "__init__", module})


def room(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def circles(graph: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """Yields circles of a graph: one for every arrow that a depth-first walk finds to lead back."""
    path: list[str] = []
    done: set[str] = set()

    def walk(node: str) -> Iterator[list[str]]:
        path.append(node)
        for following in sorted(graph[node]):
            if following in path:
                yield [*path[path.index(following) :], following]
            elif following not in done:
                yield from walk(following)
        done.add(path.pop())

    for node in sorted(graph):
        if node not in done:
            yield from walk(node)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_a_folder_imports_what_its_row_of_the_table_allows(module: str) -> None:
    allowed = {room(module), *EVERYBODYS, *MAY_IMPORT[room(module)].split()}
    assert {name for name in imports_of(module) if room(name) not in allowed} == set()


def test_the_table_itself_has_no_circle() -> None:
    assert list(circles({name: frozenset(row.split()) for name, row in MAY_IMPORT.items()})) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert list(circles({module: imports_of(module) for module in MODULES if module != "__init__"})) == []


def test_a_circle_is_found() -> None:
    graph = {"a": frozenset("b"), "b": frozenset("cd"), "c": frozenset("a"), "d": frozenset()}
    assert list(circles(graph)) == [["a", "b", "c", "a"]]


def test_the_table_names_what_is_there() -> None:
    assert {room(module) for module in MODULES} - {"__init__"} == set(MAY_IMPORT)
    assert len([path for path in PACKAGE.iterdir() if path.suffix == ".py"]) <= 10


@pytest.mark.process
def test_every_folder_is_a_package_that_a_wheel_takes_along() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder.name for folder in folders if not (folder / "__init__.py").is_file()] == []
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "wfc_dist"]
    hidden = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False).stdout.split()
    assert [name for name in hidden if name.endswith(".py")] == [], "a pattern of .gitignore hides a file of the package"


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("wfc_dist", "torch ray transformers numpy pydantic typer rich yaml"),
        ("wfc_dist.rounds", "torch ray transformers numpy"),
        ("wfc_dist.stream", "torch ray transformers numpy"),
        ("wfc_dist.reports.status", "torch ray transformers"),
        ("wfc_dist.config.loading", "torch ray transformers"),
        ("wfc_dist.runs.store", "torch ray transformers"),
        ("wfc_dist.cli.commands", "torch ray transformers pydantic"),
        ("wfc_dist.data.audit", "torch ray transformers"),
        ("wfc_dist.centralize.rank", "ray transformers"),
        ("wfc_dist.compare.sweep", "torch ray transformers"),
        ("wfc_dist.launch.submit_ray", "torch ray transformers typer"),
        ("wfc_dist.launch.submit_slurm", "torch ray transformers submitit typer"),
    ],
)
def test_light_modules_load_no_heavy_libraries(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.process
def test_a_run_in_process_starts_without_the_libraries_it_may_never_use() -> None:
    code = """if True:
        import sys
        for name in "ray deepspeed datasets jiwer soundfile soxr submitit matplotlib".split():
            sys.modules[name] = None  # importing it raises
        import wfc_dist.coordinator.run, wfc_dist.coordinator.fitting, wfc_dist.backends.in_process
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_algorithm_stays_short() -> None:
    assert len((PACKAGE / "rounds.py").read_text().splitlines()) <= 120


def test_torch_distributed_is_used_in_two_places_only() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "torch.distributed as" in path.read_text()}
    assert users == {"centralize/collectives.py", "training/world.py"}


# Names that appear nowhere else than in the path of a run directory; and names that are one only as a part of a path.
_ALWAYS_A_PATH = re.compile(
    r"(^|/)(round|base|interim|attempt|events|step)-(\d|\*|$)|\b(ledger\.jsonl|status\.json|scores\.json)\b|training-curves"
)
_A_PATH_PART = {"adapters", "delta", "evaluation", "fit", "logs", "report", "serving", "slurm", "training", ".shared"}
_PATH_CALLS = {"Path", "glob", "rglob", "joinpath", "with_name", "removeprefix", "startswith"}


def spelled_run_paths(text: str, path_parts: Set[str] = frozenset(_A_PATH_PART)) -> list[str]:
    """Returns the names in a run directory that a module's text spells: string literals, but not docstrings and messages.

    Args:
        text: The module's text.
        path_parts: Names that count where they are part of a path.
    """
    tree = ast.parse(text)
    parts: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts |= {node.left, node.right}
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _PATH_CALLS:
            parts |= {*node.args}
    spelled = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            names = set(node.value.split("/")) if node in parts else set()
            if _ALWAYS_A_PATH.search(node.value) or names & path_parts:
                spelled.append(node.value)
    return spelled


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_runs_alone_spells_the_paths_of_a_run_directory(path: Path) -> None:
    if path.parent != PACKAGE / "runs":
        assert spelled_run_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_ask_runs_for_the_paths_of_a_run_directory(path: Path) -> None:
    # The folders that scripts make of their own may be called logs or delta.
    assert spelled_run_paths(path.read_text(encoding="utf-8"), path_parts=set()) == []


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ('folder / f"round-{index:04d}" / "adapters"', ["round-", "adapters"]),
        ('sorted(run_dir.glob("round-*/evaluation/*/scores.json"))', ["round-*/evaluation/*/scores.json"]),
        ('open(run_dir / "status.json")', ["status.json"]),
        ('name = f"base-{index:04d}"', ["base-"]),
        ('Path("logs")', ["logs"]),
        ('"""RUN/ledger.jsonl is read."""', []),
        ('facts["adapters"], log.span("fit"), print("round 1: base-0001 is done")', []),
    ],
)
def test_a_spelled_path_is_found(text: str, spelled: list[str]) -> None:
    assert sorted(spelled_run_paths(text)) == sorted(spelled)


def test_the_folder_that_spells_them_would_be_found() -> None:
    assert len(spelled_run_paths((PACKAGE / "runs" / "layout.py").read_text())) > 10
