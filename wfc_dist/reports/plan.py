"""What a run would do, before anything starts."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from safetensors import safe_open

from wfc_dist.backends.ray.live_plan import LivePlan
from wfc_dist.config.schema import Config
from wfc_dist.reports.status import _table


def plan_table(config: Config, hours: Mapping[str, float]) -> Group:
    """Returns what a run would do: rounds, windows seen, trainers at a time, test decodings.

    Args:
        config: The resolved configuration.
        hours: Hours of speech in each training split.
    """
    cluster, train, rounds = config.cluster, config.train, config.round_list()
    widest = max(len(names) for names in rounds)
    table = _table(
        f"{config.run_url() or config.run_dir()}: {len(rounds)} rounds",
        "round",
        "data set",
        "hours",
        "steps",
        "windows",
        "passes",
    )
    windows = train.max_steps * train.gradient_accumulation * train.batch_size * cluster.workers_per_trainer
    for index, names in enumerate(rounds, start=1):
        for name in names:
            seconds = windows * (28 if train.packing else 5)  # a packed window is nearly full; 5 s is a usual clip
            passes = f"about {seconds / 3600 / hours[name]:.1f}" if hours.get(name) else "?"
            table.add_row(str(index), name, f"{hours.get(name, 0):.2f}", str(train.max_steps), str(windows), passes)
    facts = _table("resources", "what", "value")
    places = {
        "ray": cluster.address or "one embedded Ray node on this machine",
        "slurm": "Slurm, one job per adapter and one per average",
        "in_process": "this process",
    }
    where = places[cluster.backend]
    facts.add_row("runs on", where)
    facts.add_row("trainers wanted at a time", str(min(widest, cluster.max_trainers or widest)))
    needs = f"{cluster.workers_per_trainer} x ({cluster.cpus_per_worker:g} CPU, {cluster.gpus_per_worker:g} GPU)"
    facts.add_row("one trainer needs", needs)
    if cluster.backend == "ray" and not cluster.address and not cluster.gpus_per_worker:
        fit = int((os.cpu_count() or 1) / (cluster.cpus_per_worker * cluster.workers_per_trainer))
        facts.add_row(
            "trainers that fit here", f"{fit} ({os.cpu_count()} cores)" if fit else "none: lower cluster.cpus_per_worker"
        )
    for what, value in _sizes(config).items():
        facts.add_row(what, value)
    models = 1 + len(rounds) + (sum(map(len, rounds)) if config.evaluate.adapters else 0)
    sets = len(config.test_sets())
    facts.add_row("test sets decoded", f"{models} models x {sets} sets = {models * sets}")
    return Group(table, facts)


def _sizes(config: Config) -> dict[str, str]:
    """Returns parameters and bytes of an adapter, a delta and a base, from the headers of a local root model's files."""
    folder = Path(config.base.model)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return {"bytes": f"known once {config.base.model} is on this machine"}
    shapes: dict[str, list[int]] = {}
    for path in files:
        with safe_open(path, framework="np") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
    adapted = {name: shape for name, shape in shapes.items() if len(shape) == 2 and _is_target(name, config)}
    is_full = config.lora.variant == "full"
    num_stored = sum((min(shape) if is_full else config.lora.r) * sum(shape) for shape in adapted.values())
    num_trained = _count(adapted) if is_full else num_stored  # of a whole weight an identity is stored too
    widest = max(len(names) for names in config.round_list())
    width = {"float32": 4}.get(config.base.dtype, 2) if config.base.dtype != "auto" else files[0].stat().st_size / _count(shapes)
    total = sum(path.stat().st_size for path in files)
    return {
        "adapted matrices": f"{len(adapted)} of {len(shapes)} tensors",
        "an adapter": f"{num_trained:,} parameters, {4 * num_stored / 1e6:.1f} MB",
        "gathered a round": f"{4 * num_stored * widest / 1e6:.1f} MB at most",
        "a new base": f"{width * _count(adapted) / 1e6:.0f} MB written and broadcast, {total / 1e6:.0f} MB shared with the root",
    }


def _count(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _is_target(name: str, config: Config) -> bool:
    """Whether PEFT would adapt this weight: a list names the last parts of modules, a string is a pattern of the whole."""
    module, targets = name.removesuffix(".weight"), config.lora.target_modules
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def live_table(plan: LivePlan, config: Config, hours: Mapping[str, float]) -> Group:
    """Returns the plan as tables: nodes, and the data sets of each round in the order in which trainers take them."""
    nodes = Table(title="the cluster now", title_justify="left", title_style="bold")
    for column in ("node", "address", "CPU free", "GPU free", "trainer workers", "note"):
        nodes.add_column(column)
    for row in plan.nodes:
        cpus, gpus = f"{row.free_cpus:g} of {row.node.cpus:g}", f"{row.free_gpus:g} of {row.node.gpus:g}"
        nodes.add_row(row.node.name, row.node.address, cpus, gpus, str(row.num_workers), row.note)
    rounds = Table(title="who goes where", title_justify="left", title_style="bold")
    for column in ("round", "data set", "trainer", "on"):
        rounds.add_column(column)
    for index, names in enumerate(config.round_list(), start=1):
        for position, name in enumerate(sorted(names, key=lambda name: -hours.get(name, 0.0))):
            fits = position < len(plan.gangs)
            trainer = str(position) if fits else "the first that is free"
            rounds.add_row(str(index), name, trainer, ", ".join(plan.gangs[position]) if fits else "queued")
    lines = [f"not there yet: {plan.missing}"] if plan.missing else []
    lines += [] if plan.gangs else ["no trainer fits into what is free now; the run would wait"]
    return Group(nodes, rounds, *lines, *(f"not used: {why}" for why in plan.refused))
