"""Run directories with made-up scores, for tests of the matrix and the report."""

import json
from dataclasses import asdict

from wfc_dist.config import loading
from wfc_dist.evaluation.hypotheses import SCHEMA_VERSION, Hypothesis, score_hypotheses, write_hypotheses
from wfc_dist.storage import durable

WORDS = "a b c d e f g h i j"
BASES = {
    0: {"zh": 5, "cs": 4, "ar": 8, "en": 1, "fr": 2},
    1: {"zh": 5, "cs": 2, "ar": 4, "en": 1, "fr": 3},
    2: {"zh": 2, "cs": 3, "ar": 4, "en": 2, "fr": 3},
}


def make_config(folder, rounds=(("cs", "ar"), ("zh",))):
    def data(language):
        return {"source": "x", "language": language, "splits": {"train": "train.jsonl", "test": "test.jsonl"}}

    return loading.parse(
        {
            "run": {"name": "r", "dir": str(folder)},
            "base": {"model": "m"},
            "datasets": {name: data(name) for name in ("zh", "cs", "ar")},
            "rounds": [list(names) for names in rounds],
            "evaluate": {
                "normalizer": "none",
                "protected": {name: {"source": "x", "splits": {"test": "t"}} for name in ("en", "fr")},
            },
        }
    )  # fmt: skip


def make_run(folder, config):
    durable.write_json(folder / "config.json", {"config": config.model_dump(mode="json")})
    return folder


def hypotheses_with(tenths):
    """Returns 20 clips of 10 words, each with `tenths` errors or, to make intervals wide, one more or one less.

    Which clips have more differs from one number of tenths to the next: a change is not the same in every clip.
    """
    said = []
    for index in range(20):
        place = index + tenths + tenths // 8
        wrong = tenths + (place % 2 - (place % 4 > 1) if 0 < tenths < 9 else 0)
        said.append(Hypothesis(str(index), (WORDS,), " ".join(["x"] * wrong + WORDS.split()[wrong:]), "en", 1.0))
    return said


def put(folder, config, round_index, model, rates, *, with_hypotheses=True, num_clips=20):
    """Writes the scores of a model (base-NNNN or a data set's adapter) whose error on a set is `rates[set]` tenths."""
    place, scores = folder / f"round-{round_index:04d}" / "evaluation" / model, {}
    for name, tenths in rates.items():
        said = hypotheses_with(tenths)[:num_clips]
        scores[name] = asdict(score_hypotheses(said, config.evaluate.of(config.test_sets()[name]), {}))
        if with_hypotheses:
            write_hypotheses(place / f"{name}.jsonl", {"schema": SCHEMA_VERSION, "model_sha256": f"{round_index}:{model}"}, said)
    kind = "base" if model.startswith("base-") else "adapter"
    tree = {"model": model, "model_sha256": "0", "round": round_index, "kind": kind, "sets": scores}
    durable.write_json(place / "scores.json", tree)


def make_scored_run(folder):
    """Writes a run of two rounds whose bases and adapters are scored; returns the run directory."""
    config = make_config(folder)
    run_dir = make_run(folder / "r", config)
    for index, rates in BASES.items():
        put(run_dir, config, max(1, index), f"base-{index:04d}", rates)
    for index, name in ((1, "cs"), (1, "ar"), (2, "zh")):
        put(run_dir, config, index, name, BASES[index - 1] | {name: 1})
    return run_dir


def make_mixed_run(folder):
    """Writes a run whose first round learns a mix of cs and ar, which has no test split of its own; returns its directory."""
    tree = make_config(folder).model_dump(mode="json")
    parts = {name: tree["datasets"][name] for name in ("cs", "ar")}
    tree["datasets"]["all"] = {"format": "mix", "parts": parts, "splits": {"train": "train"}}
    config = loading.parse(tree | {"rounds": [["all"], ["zh"]]})
    run_dir = make_run(folder / "mixed", config)
    for index, rates in BASES.items():
        put(run_dir, config, max(1, index), f"base-{index:04d}", rates)
    put(run_dir, config, 1, "all", BASES[0] | {"cs": 1, "ar": 1})
    return run_dir


MODULES = ("model.encoder.layers.0.self_attn.q_proj", "model.decoder.layers.0.self_attn.v_proj")


def make_full_run(folder):
    """Writes a run that has something for every chapter of a report; returns its directory."""
    run_dir = make_scored_run(folder)
    curve = run_dir / "round-0001" / "training-curves" / "cs.jsonl"
    curve.parent.mkdir()
    rows = [{"step": step, "loss": 3 / step, "lr": 1e-3} for step in range(1, 20)] + [{"step": 10, "dev_loss": 0.5}]
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"exactness_gap": 0.3612, "update_loss": 1e-3, "gap_per_module": dict.fromkeys(MODULES, 0.36), "method": "mean"}
    facts |= {"adapters": {"cs": "c" * 64, "ar": "a" * 64}, "parent_sha256": "0" * 64}
    for index in range(3):
        about = {"schema": 1, "files": {}, "sha256": str(index) * 64, **(facts if index else {"model": "m"})}
        durable.write_json(run_dir / f"base-{index:04d}" / "manifest.json", about)
    for number in range(20):
        line = {"time": "2026-01-02T03:04:05Z", "attempt": 1, "event": "base", "round": number, "sha256": "ab" * 32}
        durable.append_line(run_dir / "ledger.jsonl", json.dumps(line | {"path": "/a/long/path" * 20}))
    logs = run_dir / "round-0001" / "logs" / "attempt-1"
    logs.mkdir(parents=True)
    for process, name, seconds in (("gang-0-rank-0-on-a-host-with-a-long-name", "train", 7), ("coordinator", "fit", 8)):
        events = [{"time_s": 0, "event": f"{name}.start"}, {"time_s": seconds, "event": f"{name}.end"}]
        (logs / f"events-{process}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    path = run_dir / "round-0002" / "evaluation" / "base-0002" / "cs.jsonl"
    looped = Hypothesis("x", ("hi que tal",), "hi que" + " vale" * 90, "es", 1.0, "de", (("en", "es", "es"),))
    write_hypotheses(path, {"schema": SCHEMA_VERSION, "model_sha256": "another"}, [*hypotheses_with(3), looped])
    return run_dir
