"""The distributed average: bytes on the wire and time of each rank, beside what is usually done with K updates on N ranks.

    python benchmarks/average.py [--model whisper-base] [--adapters 2 8 16 64] [--ranks 2 4 8]

Real gloo ranks on this machine, one thread each; adapters of r 32 on q and v are in memory when the clock starts. It stops when
every module's mean lies at the rank that merges it (ours) or at every rank (the others).
- ours: a rank sends the smaller of its factors and its partial sum to each module's owner; no bytes of the mean depend on N.
- all-gather: every rank sends its adapters' factors to every other and averages all modules.
- all-reduce: every rank adds up its adapters' dense updates in float32, then one all-reduce a module.
Bytes are what the loopback interface counted, shared among the ranks; nothing else should use it meanwhile.
With more ranks than cores the seconds say little, the bytes all.
"""

import argparse
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measuring import Measured, peak_bytes, write_result
from turbo import SHAPES, adapted_modules

from wfc_dist.backends import net
from wfc_dist.centralize import apply, collectives, exchange
from wfc_dist.centralize.exchange import Packet
from wfc_dist.centralize.rank import average_owned
from wfc_dist.merging import merge_method
from wfc_dist.merging.factors import Factors, concatenated, is_smaller_dense
from wfc_dist.merging.partial_mean import size_bytes

LORA_R = 32
Loaded = dict[str, dict[str, Factors]]


def make_adapters(model: str, numbers: Sequence[int]) -> Loaded:
    """Returns random adapters, the same for the same number in every process."""
    loaded: Loaded = {}
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        loaded[f"set{number:03d}"] = {
            module: Factors(
                torch.randn(LORA_R, size, generator=generator) * 0.02, torch.randn(size, LORA_R, generator=generator) * 0.002, 2.0
            )
            for module, size in adapted_modules(model).items()
        }
    return loaded


def ours(loaded: Loaded, num_adapters: int, group: collectives.Group) -> None:
    names = [f"set{number:03d}" for number in range(num_adapters)]
    modules = exchange.agree_on_modules(loaded, group)
    average_owned(
        {name: dict(factors) for name, factors in loaded.items()}, modules, dict.fromkeys(names, 1 / num_adapters), group
    )


def all_gather(loaded: Loaded, num_adapters: int, group: collectives.Group) -> None:
    mean, shares = merge_method("mean"), [1 / num_adapters] * num_adapters
    with apply.threads() as pool:
        waiting = []
        for module in next(iter(loaded.values())):
            sent = Packet({name: factors[module] for name, factors in loaded.items()}).to_bytes()
            found: dict[str, Factors] = {}
            for part in collectives.all_gather_bytes(sent, group):
                found |= Packet.from_bytes(part).factors
            waiting.append(pool.submit(mean, [found[name] for name in sorted(found)], shares))
        for future in waiting:
            future.result()


def all_reduce(loaded: Loaded, num_adapters: int, group: collectives.Group) -> None:
    for module in next(iter(loaded.values())):
        items = [factors[module] for factors in loaded.values()]
        update = concatenated(items, [1 / num_adapters] * len(items))
        dense = (update.b_OR * update.coefficients_R.float()) @ update.a_RI
        dist.all_reduce(dense, group=group.handle)


WAYS: dict[str, Callable[[Loaded, int, collectives.Group], None]] = {
    "ours": ours, "all-gather of factors": all_gather, "dense all-reduce": all_reduce,
}  # fmt: skip


def loopback_bytes() -> int:
    """Returns what the loopback interface has sent since the machine started."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def rank_of(rank: int, ranks: int, port: int, work: tuple[str, int, int], results: Any) -> None:
    """Runs every way on one rank; rank 0 reports seconds, the bytes of all ranks together and its memory."""
    model, num_adapters, repetitions = work
    torch.set_num_threads(1)
    group = collectives.join(rank, ranks, "127.0.0.1", port)
    loaded = make_adapters(model, range(rank, num_adapters, ranks))
    for way, run in WAYS.items():
        for _ in range(repetitions):
            dist.barrier()
            sent, start = loopback_bytes(), time.monotonic()
            run(loaded, num_adapters, group)
            dist.barrier()
            if rank == 0:
                results.put((way, time.monotonic() - start, loopback_bytes() - sent, peak_bytes()))
            dist.barrier()
    collectives.leave(group)


def measure(model: str, num_adapters: int, ranks: int, repetitions: int) -> dict[str, Measured]:
    """Returns way -> what it took, on `ranks` fresh processes."""
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), net.free_port("127.0.0.1")
    processes = [
        context.Process(target=rank_of, args=(rank, ranks, port, (model, num_adapters, repetitions), results), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in range(len(WAYS) * repetitions)]
    for process in processes:
        process.join(60)
    by_way: dict[str, list[tuple[float, int, int]]] = {}
    for way, *rest in found:
        by_way.setdefault(way, []).append(tuple(rest))
    return {
        way: Measured(
            f"K = {num_adapters}, {ranks} ranks: {way}",
            [seconds for seconds, _, _ in runs],
            max(memory for _, _, memory in runs),
            {"mb_sent_per_rank": round(statistics.median(size for _, size, _ in runs) / ranks / 1e6, 2)},
        )
        for way, runs in by_way.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="whisper-base")
    parser.add_argument("--adapters", nargs="+", type=int, default=[2, 8, 16, 64])
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    rows: list[Measured] = []
    cheapest: list[float] = []
    for num_adapters in options.adapters:
        for ranks in (ranks for ranks in options.ranks if ranks <= num_adapters):
            found = measure(options.model, num_adapters, ranks, options.repetitions)
            mine = found["ours"]
            for item in found.values():
                sent = item.facts["mb_sent_per_rank"] / mine.facts["mb_sent_per_rank"]
                item.facts.update(bytes_times_ours=round(sent, 2), times_ours=round(item.median_s / mine.median_s, 2))
                told = f"{item.median_s:8.3f} s {item.facts['mb_sent_per_rank']:9.2f} MB {sent:7.2f} x ours"
                print(f"  {item.name:<44} {told}", flush=True)
            cheapest.append(min(item.facts["bytes_times_ours"] for way, item in found.items() if way != "ours"))
            rows += found.values()
    print(f"the cheaper of the two other ways sends {min(cheapest):.2f} to {max(cheapest):.2f} times our bytes")
    size = next(iter(adapted_modules(options.model).values()))
    dense = next(k for k in itertools.count(1) if is_smaller_dense(k * LORA_R, size, size)) - 1
    sums = size_bytes(LORA_R, size, size) // (4 * LORA_R * 2 * size)  # over the bytes of one adapter's factors
    question = f"average: {options.model}, r {LORA_R}; dense above K = {dense}, sums travel above {sums} a rank"
    command = " ".join(["python", "benchmarks/average.py", *sys.argv[1:]])
    write_result(f"average-{options.model}", question, rows, command=command, model=options.model, lora_r=LORA_R)


if __name__ == "__main__":
    main()
