"""The public API: every name resolves, explains itself and is used by an example and by the command line; importing is cheap."""

import ast
import doctest
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import wfc_dist

REPO = Path(__file__).parents[2]
FUNCTIONS = sorted(name for name in wfc_dist.__all__ if inspect.isfunction(getattr(wfc_dist, name)))
VERBS = {"average", "evaluate", "export", "merge", "open_run", "rebuild", "run", "transcribe", "load_config"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the run directory of a tiny run of two rounds, in a folder where the examples of docstrings find what they name."""
    folder = tmp_path_factory.mktemp("api")
    path = folder / "configs" / "demo.yaml"
    path.parent.mkdir()
    tiny.make_config(folder, rounds=[["es", "fr"], ["it"]], run={"name": "demo"}).rename(path)
    shutil.copyfile(next((folder / "es" / "audio").glob("test-*.flac")), folder / "speech.flac")
    code = "import sys, wfc_dist; print(wfc_dist.run(wfc_dist.load_config(sys.argv[1])).path)"  # its process group ends with it
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == wfc_dist.load_config(path).run_dir() / "base-0002"
    return wfc_dist.load_config(path).run_dir()


def test_every_name_resolves_where_its_table_says() -> None:
    assert wfc_dist.__all__ == sorted(wfc_dist._HOME_OF) and set(wfc_dist.__all__) <= set(dir(wfc_dist))
    for name, home in wfc_dist._HOME_OF.items():
        assert getattr(wfc_dist, name) is getattr(importlib.import_module(f"wfc_dist.{home}"), name)
    with pytest.raises(AttributeError, match="no attribute 'avrage'"):
        wfc_dist.avrage  # noqa: B018


def test_what_type_checkers_see_is_what_is_imported() -> None:
    tree = ast.parse(Path(wfc_dist.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: f"wfc_dist.{home}" for name, home in wfc_dist._HOME_OF.items()}
    assert all(alias.asname == alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    assert (Path(wfc_dist.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_returns_and_raises(name: str) -> None:
    function = getattr(wfc_dist, name)
    text, parameters = inspect.getdoc(function) or "", inspect.signature(function).parameters
    first = text.splitlines()[0]
    assert first.endswith(".") and first.split()[0].rstrip(",").endswith("s")  # "Returns ...", "Averages ..."
    assert "Raises:" in text and ("Returns:" in text or first.startswith(("Returns", "Yields", "Reads")))
    assert all(f"{parameter}:" in text or f"{parameter}," in text for parameter in parameters), name


@pytest.mark.parametrize("name", wfc_dist.__all__)
def test_a_class_says_what_it_holds(name: str) -> None:
    assert inspect.getdoc(getattr(wfc_dist, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_an_example_that_calls_it(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(wfc_dist, name), name)
    source = "".join(part.source for part in example.examples)
    assert (
        re.search(r"\n(    )?Example:\n", example.docstring or "") and "from wfc_dist import " in source and f"{name}(" in source
    )


@pytest.mark.process
def test_examples_in_docstrings_are_right(finished: Path) -> None:
    code = "import doctest, importlib, sys; print(*[doctest.testmod(importlib.import_module(name)) for name in sys.argv[1:]])"
    homes = sorted({f"wfc_dist.{home}" for home in wfc_dist._HOME_OF.values()})
    command = [sys.executable, "-c", code, *homes]  # a run leaves a group of torch.distributed, which ends with its process
    done = subprocess.run(command, cwd=finished.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("TestResults(failed=0, ") == len(homes), done.stdout


@pytest.mark.process
def test_importing_takes_less_than_50_ms() -> None:
    code = "import time; start = time.process_time(); import wfc_dist; print(time.process_time() - start)"
    best = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(5)
    )
    assert best < 0.05


def test_the_command_line_calls_the_public_functions_and_nothing_below_them() -> None:
    used, homes = set(), {f"wfc_dist.{wfc_dist._HOME_OF[verb]}": verb for verb in VERBS}
    for path in (REPO / "wfc_dist" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wfc_dist":
                used.add(node.attr)
            if isinstance(node, ast.ImportFrom):
                assert node.module not in homes, f"{path.name} imports {node.module} and not wfc_dist.{homes[node.module]}"
    assert used >= VERBS


@pytest.mark.process
def test_a_run_is_read_through_its_handle(finished: Path) -> None:
    run = wfc_dist.open_run(finished)
    assert [base.index for base in run.bases] == [0, 1, 2] and run.base() == run.bases[-1]
    assert [(item.round_index, item.dataset) for item in run.adapters()] == [(1, "es"), (1, "fr"), (2, "it")]
    assert dict(run.base(1).adapters) == {item.dataset: item.sha256 for item in run.adapters(1)}
    assert run.status().state == "done" and run.status().facts["base_sha256"] == run.base().sha256
    assert [item.model for item in run.scores() if item.kind == "base"] == ["base-0000", "base-0001", "base-0002"]
    assert [line["event"] for line in run.ledger()].count("base") == 3
    assert [row["step"] for row in run.curve(1, "es")] == [1, 2, 3, 4] and run.curve(1, "z") == []
    assert run.checkpoints(1, "es") == []  # pruned once the round is committed
    assert run.deltas() == [run.paths.delta(1), run.paths.delta(2)] and run.url is None and run.arrived_s == {}
    with pytest.raises(wfc_dist.InputError, match="no committed base 3"):
        run.base(3)


@pytest.mark.process
def test_a_new_run_has_no_status_and_a_damaged_one_is_named(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    run = wfc_dist.open_run(tmp_path)
    assert (run.status().state, run.num_bases, run.scores(), run.ledger()) == ("new", 0, [], [])
    with pytest.raises(wfc_dist.InputError, match="no committed base yet"):
        run.base()
    run.paths.status.write_text('{"state": ')
    with pytest.raises(wfc_dist.IntegrityError, match=r"status\.json is not JSON .*`wfc run` writes it anew"):
        run.status()


@pytest.mark.process
def test_the_example_does_all_of_it_with_the_public_names_alone(finished: Path, tmp_path: Path) -> None:
    script = REPO / "examples" / "api.py"
    modules = {node.module for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)}
    assert modules == {"pathlib", "wfc_dist"}
    recording = finished.parents[1] / "speech.flac"
    command = [sys.executable, str(script), str(finished), str(tmp_path / "out"), str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rebuilt bit for bit: True" in done.stdout and "refused: " in done.stdout and str(recording) in done.stdout
    assert wfc_dist.rebuild(finished, 1, tmp_path / "again").sha256 == wfc_dist.open_run(finished).base(1).sha256
    with pytest.raises(wfc_dist.InputError, match="not written over"):
        wfc_dist.rebuild(finished, 1, tmp_path / "again")
