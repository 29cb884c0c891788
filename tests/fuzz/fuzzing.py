"""`make fuzz`: each parser of `parsers.py` under Atheris, which looks for inputs that reach new code of wfc_dist.

    PYTHONPATH=tests:tests/fuzz:benchmarks:examples/whisper_base python tests/fuzz/fuzzing.py --seconds 60 jsonl csv

Inputs that reach new code stay in build/fuzz/PARSER, where the next call begins. A fault is printed with its place, and its
shortest input goes to build/fuzz/faults/PARSER. The exit code is 1 if there was one.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

GROWTH_BYTES, RSS_MB, TIMEOUT_S, LONGEST = 4 << 30, 4000, 20, 16_384


def main() -> None:
    """Fuzzes the parsers one after the other and prints a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parsers", nargs="*", metavar="PARSER", help="all by default")
    options.add_argument("--seconds", type=int, default=60, help="of each parser")
    options.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        _fuzz(given.parsers[0], given.corpus, given.seconds)
    from parsers import PARSERS

    num_faults = 0
    print("| parser | executions | branches reached | before | faults |\n|---|---|---|---|---|")
    for name in given.parsers or PARSERS:
        log = _worker(name, given.corpus, given.seconds)
        reached = [int(number) for number in re.findall(r"cov: (\d+)", log)] or [0]
        executed = re.search(r"number_of_executed_units: (\d+)", log)
        faults = sorted({line for line in log.splitlines() if line.startswith("fault: ")})
        faults += [line for line in log.splitlines() if line.startswith("==") and "ERROR: libFuzzer" in line]
        if executed is None:
            faults.append(f"fault: the process ended early, see {given.corpus / name}.log")
        num_faults += len(faults)
        print(f"| {name} | {executed[1] if executed else '?'} | {reached[-1]} | {reached[0]} | {len(faults)} |", flush=True)
        print("".join(f"  {line}\n" for line in faults), end="", flush=True)
    sys.exit(num_faults > 0)


def _worker(name: str, corpus: Path, seconds: int) -> str:
    """Fuzzes one parser in a process of its own and returns what it printed."""
    (corpus / name).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds), "--corpus", str(corpus)]
    with open(corpus / f"{name}.log", "w+", encoding="utf-8", errors="replace") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        return log.read()


def _fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Fuzzes one parser in this process, which ends."""
    import logging

    import atheris

    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["wfc_dist"]):
        import parsers
        from mutation import mutated

        from wfc_dist import cli  # noqa: F401

        folder = Path(tempfile.mkdtemp(prefix="wfc-fuzz-"))
        parser = parsers.make(name, folder / "x")
    grown = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (grown, grown))
    for number, seed in enumerate([*parser.seeds, *(path.read_bytes() for path in parsers.regressions(name))]):
        (corpus / name / f"seed-{number}").write_bytes(seed)
    shortest: dict[str, int] = {}

    def one(data: bytes) -> None:
        fault = parsers.fault_of(parser, data)
        if not fault or len(data) >= shortest.get(fault, 1 << 62):
            return
        if fault not in shortest:
            print(f"fault: {fault}", flush=True)
        shortest[fault] = len(data)
        place = corpus / "faults" / name / re.sub(r"\W+", "-", fault)[:100]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        changed = mutated(data, chance) if chance.random() < 0.5 else atheris.Mutate(data, len(data) + 64)
        return changed[:most]

    flags: list[Any] = [sys.argv[0], f"-max_total_time={seconds}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_MB}"]
    flags += [f"-max_len={LONGEST}", "-print_final_stats=1", f"-artifact_prefix={corpus / name}-", str(corpus / name)]
    atheris.Setup(flags, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
