"""Every parser of strangers' bytes, short: valid inputs, those that once were faults, and some hundred hostile ones.

`make fuzz` looks for more with coverage to guide it; what it finds belongs into `regressions/PARSER/`.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import parsers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutation import mutated
from parsers import PARSERS, Parser, fault_of, make, regressions

SLOW = {"parquet": 10} | dict.fromkeys(
    (name for name in PARSERS if name.startswith(("run-", "model-", "generation", "extractor", "tokenizer", "spelling"))), 40
)
"""Parser -> number of examples, where one takes tens of milliseconds."""


@pytest.fixture(scope="module")
def parser_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Parser]:
    made: dict[str, Parser] = {}

    def of(name: str) -> Parser:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp("parser") / name)
        return made[name]

    return of


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", PARSERS)
def test_valid_inputs_are_read(parser_of: Callable[[str], Parser], name: str) -> None:
    parser = parser_of(name)
    parser.read(parser.seeds[0])
    assert {fault_of(parser, seed) for seed in parser.seeds} == {""}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in PARSERS for path in regressions(name)],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_once_was_a_fault_is_none(parser_of: Callable[[str], Parser], name: str, path: Path) -> None:
    assert fault_of(parser_of(name), path.read_bytes()) == ""


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_inputs_end_in_one_message(parser_of: Callable[[str], Parser], name: str) -> None:
    parser = parser_of(name)

    @settings(
        max_examples=SLOW.get(name, 200), derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(seed=st.sampled_from(parser.seeds), number=st.integers(0, 2**32))
    def check(seed: bytes, number: int) -> None:
        assert fault_of(parser, mutated(seed, Random(number))) == ""

    check()


def test_a_fault_is_seen() -> None:
    def read(data: bytes) -> None:
        parsers.durable.sha256_file(Path(data.decode()))

    assert "FileNotFoundError at storage/durable.py" in fault_of(Parser(read, []), b"gone")
    assert "outside of wfc_dist" in fault_of(Parser(lambda data: data[5], []), b"")


def test_regressions_belong_to_parsers() -> None:
    assert {path.name for path in parsers.REGRESSIONS.iterdir()} <= PARSERS.keys()
