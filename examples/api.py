"""The Python interface on a finished run, cell by cell: open, look, average, merge, evaluate, transcribe.

make demo                                        # makes the run, runs/demo
python examples/api.py [RUN [OUT [AUDIO...]]]    # or open this file in an editor that runs `# %%` cells
"""

# %% A run, opened for reading: it may still be working
import sys
from pathlib import Path

from wfc_dist import (
    InputError,
    Recipe,
    average,
    evaluate,
    load_model,
    merge,
    merged_update,
    open_run,
    read_delta,
    read_factors,
    rebuild,
    transcribe,
)

run = open_run(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
out = Path(sys.argv[2] if len(sys.argv) > 2 else run.path / "api")
print(f"{run.config.run.name}: {run.status().state} after {run.status().attempt} attempt(s), {run.num_bases - 1} round(s)")

# %% Its lineage: which adapters made which base
for base in run.bases:
    made_of = ", ".join(f"{name} x {base.facts['weights'][name]:.2f}" for name in base.adapters)
    print(f"base {base.index} {base.sha256[:12]}: {made_of or base.facts['model']}")

# %% What was measured: error rates of every base and every adapter, in percent
for scored in run.scores():
    print(f"{scored.model:12}", {name: round(100 * score["rate"], 1) for name, score in scored.sets.items()})

# %% What happened, and when
for line in run.ledger()[-3:]:
    print(line["time"], line["event"], line.get("round"), line.get("dataset", ""))

# %% Round 1 again by hand: the mean of its adapters, merged into base 0, is base 1
adapters = [adapter.path for adapter in run.adapters(1)]
delta = average(adapters, out / "mean")
merged = merge(run.base(0).path, delta, out / "base-1")
again = rebuild(run.path, 1, out / "rebuilt")
print("rebuilt bit for bit:", again.sha256 == run.base(1).sha256)

# %% The same on tensors: one module, another method
module = next(iter(read_delta(delta)))
factors = [read_factors(folder)[module] for folder in adapters]
weights = [1 / len(factors)] * len(factors)
update = merged_update(factors, weights, Recipe("ties", {"density": 0.2})).dense()
print(
    f"{module}: {tuple(update.shape)}, norm {update.norm():.4f} by ties, {read_delta(delta)[module].dense().norm():.4f} by mean"
)

# %% Any model on the run's test sets: the merged folder, an adapter, a base, a hub id
for name, score in evaluate(merged, run.config).items():
    print(f"{name}: {100 * score.rate:.1f} % of {score.reference_length} {score.metric} tokens, {score.num_clips} clips")

# %% What a model writes for a recording, and the model itself
recordings = [Path(word) for word in sys.argv[3:]]
for said in transcribe(run.path, recordings) if recordings else ():
    print(said.path, said.language, said.text)
model, processor, folder = load_model(merged)
print(f"{type(model).__name__} from {folder}: {sum(tensor.numel() for tensor in model.parameters()):,} numbers")

# %% Errors say what, where and what to do; all are WfcError
try:
    average(adapters, out / "mean")
except InputError as error:
    print("refused:", error.message)
