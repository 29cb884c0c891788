"""A run on paper: bytes, seconds and dollars from formulas, what was measured on two cores, and assumptions with names.

`python benchmarks/scale.py --plan` prints it; every assumption is an option there.
"""

import argparse
import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from measuring import RESULTS
from turbo import tensor_shapes

PAGE = RESULTS.parent.parent / "docs" / "performance" / "plan.md"
MODEL = "whisper-large-v3-turbo"
MEASURED_AT = 512  # gangs, of the measurements that grow with them
TRAINER_MESSAGES_PER_S = 16  # liveness.ASK_AT_ONCE each fleet.POLL_S


def _option(default: float, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class Assumed:
    """What nobody measured here: replace it with your own."""

    nodes: int = _option(1000, "Nodes, one trainer on each")
    gpus: int = _option(8, "GPUs of a node, all of its trainer's")
    sets: int = _option(4000, "Data sets of a round, K")
    rounds: int = _option(3, "Rounds")
    steps: int = _option(2000, "train.max_steps")
    step_s: float = _option(0.5, "Seconds of an optimizer step on your GPUs: `wfc report` shows it")
    dollars: float = _option(2.5, "Price of a GPU hour")
    network: float = _option(3.0, "Network of a node, GB/s")
    storage: float = _option(20.0, "Shared storage, GB/s in all")
    ranks: int = _option(16, "cluster.centralizer_ranks, on as many nodes")
    gflops: float = _option(
        6.0,
        "Float64 arithmetic of the average, GFLOP/s a core; two cores here did 64 adapters of whisper-base at about this rate",
    )
    cores: int = _option(4, "Cores that a rank of the average uses (at most 4)")
    start_s: float = _option(60.0, "Start of a trainer: libraries and GPU")
    mtbf_h: float = _option(20000.0, "Hours between losses of one node")


def _measured() -> dict[str, float]:
    """Returns what benchmarks/results/ says, by short names."""
    result = json.loads((RESULTS / "scale.json").read_text())
    rows = {row["measure"]: row for row in result["rows"]}

    def value(start: str, size: str) -> float:
        return float(next(row[size] for name, row in rows.items() if name.startswith(start)))

    merge: dict[str, Any] = json.loads((RESULTS / f"new-base-{MODEL}-float16.json").read_text())["rows"][0]
    big = "512 x 4,096"
    return {
        "commit_ms": value("coordinator", big),
        "messages": value("messages to gangs", big),
        "decision_ms": value("a decision (", big),
        "idle_ms": value("a pass", big),
        "placement_ms": value("first placement", big),
        "grown_kb": value("peak memory beyond", big),
        "ledger_bytes": value("bytes of the ledger", big),
        "call_ms": result["ray_ms"]["message and answer"][1],
        "wait_ms": result["ray_ms"]["512 references waited for"][1],
        "merge_s": float(merge["median_s"]),
    }


def _size(value: float) -> str:
    power = min(4, max(0, int(math.log10(value) // 3))) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 5400 else f"{value / 3600:.1f} h"


Row = tuple[str, str, str]
"""What, formula, value."""


class _Sizes:
    """Bytes of one adapter, base, delta and so on, and numbers of entries; K is `assumed.sets`."""

    def __init__(self, assumed: Assumed) -> None:
        shapes = dict(tensor_shapes(MODEL))
        adapted = [shape for name, shape in shapes.items() if name.endswith(("q_proj.weight", "v_proj.weight"))]
        self.entries, self.lora_r = sum(map(math.prod, adapted)), 32
        self.adapter, self.base = 4 * self.lora_r * sum(map(sum, adapted)), 2 * sum(map(math.prod, shapes.values()))
        self.changed, self.exchange = 2 * self.entries, 6 * self.entries
        self.adapters = assumed.sets * self.adapter
        self.delta = min(self.adapters, 4 * self.entries)


class _Times:
    """Seconds of the parts of a run."""

    def __init__(self, assumed: Assumed, sizes: _Sizes, merge_s: float) -> None:
        a, network = assumed, 1e9 * assumed.network
        self.waves, self.one = math.ceil(a.sets / a.nodes), a.steps * a.step_s
        self.train = self.waves * self.one
        self.cold = a.start_s + sizes.base * max(a.nodes / (1e9 * a.storage), 1 / network)
        self.read = sizes.adapters / 1e9 / min(a.storage, a.ranks * a.network)
        self.sums = 2 * sizes.lora_r * sizes.entries * a.sets / (1e9 * a.gflops * a.ranks * a.cores)
        self.sent = sizes.exchange / network
        self.merge = merge_s + (a.rounds - 1) / 2 * sizes.delta / network
        self.broadcast = math.ceil(math.log2(a.nodes)) * sizes.changed / network
        self.turn = self.read + self.sums + self.sent + self.merge + self.broadcast
        self.whole = self.cold + a.rounds * (self.train + self.turn)


def _bytes_rows(a: Assumed, sizes: _Sizes, ledger_bytes: float) -> list[Row]:
    kept, lines = a.rounds * (sizes.adapters + sizes.delta + sizes.changed), a.rounds * a.sets * ledger_bytes
    return [
        ("**Bytes**", "", ""),
        ("an adapter (r 32, q and v)", "4 r sum(in + out)", _size(sizes.adapter)),
        ("adapters of a round, on disk", "K x adapter", _size(sizes.adapters)),
        ("training states at its end, until it commits", "K x 2 kept x 3 x adapter", _size(6 * sizes.adapters)),
        ("its delta, on disk", "min(K x adapter, 4 sum(in x out))", _size(sizes.delta)),
        ("its base, on disk (the rest is shared with the root)", "2 sum(in x out)", _size(sizes.changed)),
        ("kept on disk at the end", "rounds x (K x adapter + delta + base)", _size(kept)),
        ("first load of the base, from storage", "nodes x base, if one process a node reads it", _size(a.nodes * sizes.base)),
        ("read by the average, a round", "K x adapter", _size(sizes.adapters)),
        ("sent by each rank of the average, a round", "at most 6 sum(in x out)", _size(sizes.exchange)),
        ("broadcast, a round", "nodes x changed tensors", _size(a.nodes * sizes.changed)),
        ("ledger at the end", f"rounds x K x {ledger_bytes:.0f} B", _size(lines)),
        (
            "ledger sent, on object storage only: whole, for each line",
            "rounds x K x ledger / 2",
            _size(a.rounds * a.sets * lines / 2),
        ),
    ]


def _seconds_rows(times: _Times, merge_s: float) -> list[Row]:
    return [
        ("**Seconds**", "", ""),
        ("cold start, once", "start + nodes x base / storage", _seconds(times.cold)),
        ("training, a round", "ceil(K / nodes) x steps x step", _seconds(times.train)),
        ("average: reading", "K x adapter / min(storage, ranks x network)", _seconds(times.read)),
        ("average: arithmetic", "2 r sum(in x out) x K / (ranks x cores x rate)", _seconds(times.sums)),
        ("average: exchange", "6 sum(in x out) / network", _seconds(times.sent)),
        ("merge and new base", f"{merge_s:.1f} s, and each delta before read", _seconds(times.merge)),
        ("broadcast", "ceil(log2 nodes) x changed / network, if receivers pass it on", _seconds(times.broadcast)),
        ("the whole run", "cold + rounds x (training + average + merge + broadcast)", _seconds(times.whole)),
    ]


def _coordinator_rows(a: Assumed, m: Mapping[str, float], train_s: float) -> list[Row]:
    scaled, asked = a.nodes / MEASURED_AT, TRAINER_MESSAGES_PER_S * train_s
    sent_s = (a.sets * m["messages"] + asked) * m["call_ms"] / 1e3
    idle_ms = scaled * m["idle_ms"]
    per_nodes = f"ms x nodes / {MEASURED_AT}"
    return [
        ("**Coordinator**", "", ""),
        ("processor time, a round", f"K x {m['commit_ms']:.1f} ms", _share(a.sets * m["commit_ms"] / 1e3, train_s)),
        ("a decision", f"{m['decision_ms']:.1f} {per_nodes}", f"{scaled * m['decision_ms']:.1f} ms"),
        ("polling, twice a second", f"{m['idle_ms']:.1f} {per_nodes}", f"{idle_ms:.1f} ms, {idle_ms / 5:.1g} % of a core"),
        (
            "Ray's part: messages, a round",
            f"K x {m['messages']:.2f} x {m['call_ms']:.2f} ms, and progress",
            _share(sent_s, train_s),
        ),
        ("Ray's part: one look at all trainings", f"{m['wait_ms']:.2f} ms x nodes / 512", f"{scaled * m['wait_ms']:.1f} ms"),
        ("first placement", f"{m['placement_ms']:.0f} {per_nodes}", f"{scaled * m['placement_ms']:.0f} ms"),
        (
            "messages, a round",
            f"K x {m['messages']:.2f}, and at most 16 a second for progress",
            f"{a.sets * m['messages']:,.0f}, and {asked:,.0f}",
        ),
        ("memory beyond the libraries'", f"rounds x K x {m['grown_kb']:.1f} KB", _size(a.rounds * a.sets * m["grown_kb"] * 1e3)),
    ]


def _dollars_rows(a: Assumed, times: _Times) -> list[Row]:
    useful_h = a.rounds * a.sets * times.one * a.gpus / 3600
    tail_h = a.rounds * (times.waves * a.nodes - a.sets) * times.one * a.gpus / 3600
    wait_h = (times.cold + a.rounds * times.turn) * a.nodes * a.gpus / 3600
    losses = a.nodes * times.whole / 3600 / a.mtbf_h
    lost_h = losses * (100 * a.step_s + times.cold) * a.gpus / 3600  # half of checkpoint_every = 200 steps
    return [
        ("**Dollars**", "", ""),
        ("training", "rounds x K x steps x step x GPUs of a node", _dollars(useful_h, a)),
        ("trainers idle in the last wave", "rounds x (ceil(K / nodes) nodes - K) x ..., as above", _dollars(tail_h, a)),
        ("all GPUs waiting: start, averages, broadcasts", "(cold + rounds x turnaround) x GPUs", _dollars(wait_h, a)),
        (f"lost nodes ({losses:.1f} expected)", "nodes x hours / MTBF x (100 steps + cold start)", _dollars(lost_h, a)),
        ("in all", "", _dollars(useful_h + tail_h + wait_h + lost_h, a)),
    ]


def plan(assumed: Assumed) -> str:
    """Returns the plan as Markdown: a table of assumptions, then bytes, seconds, the coordinator and dollars."""
    measured, sizes = _measured(), _Sizes(assumed)
    times = _Times(assumed, sizes, measured["merge_s"])
    table = [
        *_bytes_rows(assumed, sizes, measured["ledger_bytes"]),
        *_seconds_rows(times, measured["merge_s"]),
        *_coordinator_rows(assumed, measured, times.train),
        *_dollars_rows(assumed, times),
    ]
    shown = [f"{name} {getattr(assumed, name):g}" for name in (item.name for item in fields(assumed))]
    rows = "\n".join(f"| {what} | {formula} | {value} |" for what, formula, value in table)
    assumed_text = textwrap.fill(f"Assumed: {', '.join(shown)}.", 138)
    return f"{assumed_text}\n\n| what | formula | value |\n| --- | --- | --- |\n{rows}\n"


def _share(spent_s: float, of_s: float) -> str:
    return f"{spent_s:.0f} s, {100 * spent_s / of_s:.2g} % of a core"


def _dollars(hours: float, assumed: Assumed) -> str:
    return f"{hours:,.{0 if hours >= 10 else 1}f} GPU hours, ${hours * assumed.dollars:,.0f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each assumption, --plan and --write."""
    group = parser.add_argument_group("a run on paper")
    group.add_argument("--plan", action="store_true", help="print it and measure nothing")
    group.add_argument("--write", action="store_true", help="with --plan: write docs/performance/plan.md")
    for item in fields(Assumed):
        about = f"{item.metadata['about']} ({item.default:g})"
        group.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default, help=about)


def show(options: argparse.Namespace) -> None:
    """Prints the plan; writes it into the page when asked to."""
    text = plan(Assumed(**{item.name: getattr(options, item.name) for item in fields(Assumed)}))
    print(text)
    if options.write:
        write(text)


def write(text: str) -> None:
    """Writes the page of a plan."""
    title = (
        "# A run on paper\n\nMade by `python benchmarks/scale.py --plan --write`. [Scale](../scale.md) says how to read it.\n\n"
    )
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(title + text, encoding="utf-8")
