"""Imports point one way, and the light modules stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "wfc_dist"

# A module may import from its own layer and from those below it.
LAYERS = [
    {"errors", "faults", "net", "seeds", "train_config"},
    {"durable", "objects"},
    {"mirror"},
    {
        *("config", "merging", "object_lock", "log", "rounds", "stream", "hashing", "exact_sum", "lora_math", "low_rank"),
        *("mixtures", "partial_mean", "tensor_files"),
    },
    {"configuration"},
    {"pool"},
    {"adapters", "base_chain", "collectives", "run_layout"},
    {"run_store"},
    {"stream_store", "remote_run", "data", "root", "display", "merge", "merge_inputs", "exchange"},
    {"warm_base", "centralize", "run_opening"},
    {"evaluation"},
    {"training"},
    {"analysis"},
    {"backends"},
    {"offline", "stream_page", "overview", "standalone", "run"},
    {"compare", "stream_inbox", "stream_run"},
    {"cli", "offline_commands"},
]


def layer_of(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if module in names)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "wfc_dist":
            names |= {alias.name for alias in node.names if not alias.name.startswith("_")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wfc_dist."):
            names.add(node.module.split(".")[1])
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    if parts == ("__init__.py",):
        return
    own = layer_of(parts[0].removesuffix(".py"))
    for name in imported(path):
        assert layer_of(name) <= own, f"{path.name} imports {name}, which stands above it"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("wfc_dist.rounds", "torch ray transformers numpy"),
        ("wfc_dist.stream", "torch ray transformers numpy"),
        ("wfc_dist.overview", "torch ray transformers"),
        ("wfc_dist.configuration", "torch ray transformers"),
        ("wfc_dist.run_store", "torch ray transformers"),
        ("wfc_dist.cli", "torch ray transformers pydantic"),
        ("wfc_dist.data.audit", "torch ray transformers"),
        ("wfc_dist.centralize", "ray transformers"),
        ("wfc_dist.compare.sweep", "torch ray transformers"),
    ],
)
def test_light_modules_load_no_heavy_libraries(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_algorithm_stays_short() -> None:
    assert len((PACKAGE / "rounds.py").read_text().splitlines()) <= 120


def test_torch_distributed_is_used_in_two_places_only() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "torch.distributed as" in path.read_text()}
    assert users == {"collectives.py", "training/world.py"}
