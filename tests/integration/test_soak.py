"""Many short rounds in one process tree on Ray: what its processes hold does not grow from round to round."""

import json
import os
import secrets
import subprocess
import sys

import pytest
import soak

ROUNDS = 22  # 10 to become warm, then 6 beside 6: what is held once more in each round shows as 6
FEW = 4  # samples fall into any phase of a round
SOAK = """
import json, sys
from pathlib import Path
import soak
print(json.dumps(soak.growth(soak.soak(soak.make_config(Path(sys.argv[1]), int(sys.argv[2]), "ddp")))))
"""


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of a process that has not imported Ray yet
    environment = os.environ | auth | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SOAK, str(tmp_path_factory.mktemp("soak")), str(ROUNDS)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=800)
    return {row["measure"]: row for row in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("role", [soak.COORDINATOR, "trainers", "centralizer"])
def test_files_threads_and_memory_are_flat(growth: dict[str, dict[str, float]], role: str) -> None:
    files, threads = growth[f"{role}, files"], growth[f"{role}, threads"]
    assert files["at_first"] > 0 and files["at_last"] <= files["at_first"] + FEW
    assert threads["at_first"] > 0 and threads["at_last"] <= threads["at_first"] + FEW
    assert growth[f"{role}, MB"]["at_first"] > 0 and growth[f"{role}, MB"]["per_round"] < 1


def test_ray_holds_no_object_longer_than_its_round(growth: dict[str, dict[str, float]]) -> None:
    references = growth["Ray, references held"]
    assert references["at_first"] > 0 and references["at_last"] <= references["at_first"] + FEW
    assert growth["Ray's store, MB"]["at_last"] <= growth["Ray's store, MB"]["at_first"] + 0.1
