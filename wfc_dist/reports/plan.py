"""Tables of `wfc plan`: what a run would do, and who would go where on a running cluster."""

import os
from collections.abc import Mapping

from rich.console import Group

from wfc_dist.backends.ray.live_plan import LivePlan
from wfc_dist.config.schema import Config
from wfc_dist.config.training import TrainConfig
from wfc_dist.coordinator.plan import RunPlan
from wfc_dist.reports.tables import titled_table


def plan_table(plan: RunPlan) -> Group:
    """Returns a plan as tables: the trainings of each round, and what the run takes."""
    config, cluster = plan.config, plan.config.cluster
    rounds = config.round_list()
    title = f"{config.run_url() or config.run_dir()}: {len(rounds)} rounds"
    trainings = titled_table(title, "round", "data set", "hours", "steps", "windows", "passes")
    steps, windows = str(config.train.max_steps), str(plan.num_windows)
    for index, names in enumerate(rounds, start=1):
        for name in names:
            passes = f"about {plan.num_passes[name]:.1f}" if name in plan.num_passes else "?"
            trainings.add_row(str(index), name, f"{plan.hours.get(name, 0):.2f}", steps, windows, passes)
    resources = titled_table("resources", "what", "value")
    resources.add_row("learning rate", _learning_rate(config.train))
    places = {
        "ray": cluster.address or "one embedded Ray node on this machine",
        "slurm": "Slurm, one job per adapter and one per average",
        "in_process": "this process",
    }
    resources.add_row("runs on", places[cluster.backend])
    resources.add_row("trainers wanted at a time", str(plan.num_trainers))
    needs = f"{cluster.workers_per_trainer} x ({cluster.cpus_per_worker:g} CPU, {cluster.gpus_per_worker:g} GPU)"
    resources.add_row("one trainer needs", needs)
    if (fit := plan.num_fitting) is not None:
        shown = f"{fit} ({os.cpu_count()} cores)" if fit else "none: lower cluster.cpus_per_worker"
        resources.add_row("trainers that fit here", shown)
    for what, value in _sizes(plan).items():
        resources.add_row(what, value)
    sets = len(config.test_sets())
    resources.add_row("test sets decoded", f"{plan.num_models} models x {sets} sets = {plan.num_models * sets}")
    return Group(trainings, resources)


def _learning_rate(train: TrainConfig) -> str:
    is_long = train.warmup_steps > train.max_steps / 2 and train.schedule != "constant"
    hint = "; most of the training warms up: set train.warmup_steps to a share, such as 0.1" if is_long else ""
    rise = f"rises to {train.lr:g} in {train.warmup_steps} of {train.max_steps} steps"
    return f"{rise if train.warmup_steps else f'{train.lr:g} from the first step'}, then {train.schedule}{hint}"


def _sizes(plan: RunPlan) -> dict[str, str]:
    sizes = plan.sizes
    if sizes is None:
        return {"bytes": f"known once {plan.config.base.model} is on this machine"}
    changed_mb, root_mb = sizes.changed_bytes / 1e6, sizes.root_bytes / 1e6
    return {
        "adapted matrices": f"{sizes.num_adapted} of {sizes.num_tensors} tensors",
        "an adapter": f"{sizes.num_trained:,} parameters, {sizes.adapter_bytes / 1e6:.1f} MB",
        "gathered a round": f"{sizes.gathered_bytes / 1e6:.1f} MB at most",
        "a new base": f"{changed_mb:.0f} MB written and broadcast, {root_mb:.0f} MB shared with the root",
    }


def live_table(plan: LivePlan, config: Config, hours: Mapping[str, float]) -> Group:
    """Returns a plan as tables: the nodes, and the data sets of each round in the order of training."""
    nodes = titled_table("the cluster now", "node", "address", "CPU free", "GPU free", "trainer workers", "note")
    for row in plan.nodes:
        cpus, gpus = f"{row.free_cpus:g} of {row.node.cpus:g}", f"{row.free_gpus:g} of {row.node.gpus:g}"
        nodes.add_row(row.node.name, row.node.address, cpus, gpus, str(row.num_workers), row.note)
    rounds = titled_table("placement", "round", "data set", "trainer", "on")
    for index, names in enumerate(config.round_list(), start=1):
        for position, name in enumerate(sorted(names, key=lambda name: -hours.get(name, 0.0))):
            fits = position < len(plan.gangs)
            trainer = str(position) if fits else "the first that is free"
            rounds.add_row(str(index), name, trainer, ", ".join(plan.gangs[position]) if fits else "queued")
    lines = [f"nodes that have not joined: {plan.missing}"] if plan.missing else []
    lines += [] if plan.gangs else ["no trainer fits into the free resources; the run would wait"]
    return Group(nodes, rounds, *lines, *(f"not used: {why}" for why in plan.refused))
