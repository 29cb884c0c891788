"""The chapters of an analysis page: the measures of one round, each with its plot."""

import math
from collections.abc import Iterable, Mapping, Sequence

from wfc_dist.analysis import verdicts
from wfc_dist.analysis.decay import AdapterPrior, shrinkage_curve
from wfc_dist.analysis.distributions import LEVELS, Distribution, Pooled
from wfc_dist.analysis.gaussian import THRESHOLDS, gaussian_below
from wfc_dist.analysis.loss_line import Line
from wfc_dist.analysis.measure import ModuleMeasures, PairMatrix, RoundMeasures
from wfc_dist.config.training import TrainConfig
from wfc_dist.reports import analysis_plots
from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section, range_of
from wfc_dist.reports.plots import modules_plot

MOST_ROWS = 16  # adapters in a table
_MOST_SQUARE = 40  # adapters in a figure of pairs
_IN_TABLES = "The tables below have the numbers."
_LARGER_DECAYS = (1e-2, 1e-1, 1.0, 10.0)
_LEVEL_TITLES = {
    "as they are": "all modules as they are",
    "per module": "each module divided by its s",
    "per row": "each output row divided by its s",
}


def round_sections(measures: RoundMeasures, priors: Mapping[str, AdapterPrior], train: TrainConfig) -> list[Section]:
    """Returns the chapters of one round."""
    title = f"Round {measures.round_index}"
    made = [_variance(measures), _distribution(measures), _factors(measures), _pairs(measures)]
    made += [_norms(measures), _prior(priors, train)]
    for section in made:
        section.title = f"{title}: {section.title}"
    return made


def _per_module(measures: RoundMeasures, attribute: str) -> dict[str, float]:
    return {name: float(getattr(module, attribute)) for name, module in measures.modules.items()}


def _variance(measures: RoundMeasures) -> Section:
    num, split = len(measures.adapters), measures.variance
    ratios = {name: module.variance.ratio for name, module in measures.modules.items()}
    lines = {f"1/N = {1 / num:.3f}": 1 / num, "1: identical updates": 1.0}
    svg = modules_plot({"mean of the updates": ratios}, "variance / adapters'", lines)
    rows = [
        [Cell("variance of the mean / mean variance of the adapters"), Cell(_number(split.ratio))],
        [Cell("of it 1/N, the adapters' own"), Cell(_number(split.own))],
        [Cell("of it by what pairs have in common"), Cell(_number(split.cross))],
        [Cell("mean cosine of pairs, weighted by norms"), Cell(_number(split.mean_cosine))],
        [Cell("mean entry squared / mean square"), Cell(_number(measures.entry_mean_share))],
    ]
    if measures.own:
        rows.append([Cell("update of the run / mean variance of the adapters"), Cell(_number(measures.own.ratio))])
        rows.append([Cell("cosine of the update of the run with the mean"), Cell(_number(measures.own.cosine))])
    intro = (
        "||mean||^2 = (1/N^2) sum_ij <d_i, d_j>, exactly: the terms i = j leave 1/N of the variance, the rest is what the "
        "updates have in common. The mean is that of equal weights; the update of the run has its own method, weights and scale."
    )
    table = HtmlTable(["measure", "value"], rows)
    return Section(intro, [Part(svg=svg, alternative=range_of({"ratio": ratios}), table=table)], "variance of the average")


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or not value else f"{value:.2g}"


def _distribution(measures: RoundMeasures) -> Section:
    pooled = measures.pooled["updates"]
    kurtosis = {
        "adapters, mean": _per_module(measures, "adapters_kurtosis"),
        "averaged": _per_module(measures, "averaged_kurtosis"),
    }
    by_module = modules_plot(kurtosis, "excess kurtosis", {"Gaussian": 0.0})
    side = measures.grid_side
    parts = [
        Part(svg=analysis_plots.densities_plot(pooled, "entry of the update"), alternative=f"Densities. {_IN_TABLES}"),
        Part(
            svg=analysis_plots.qq_plot(pooled),
            alternative=f"Quantiles against those of a Gaussian. {_IN_TABLES}",
            table=_shape_table(pooled, list(LEVELS)),
        ),
        Part("Excess kurtosis of each module", svg=by_module, alternative=range_of(kurtosis)),
        Part("Sparsity: share of entries smaller than a part of s", table=_sparsity_table(pooled)),
    ]
    intro = (
        f"Entries of scaling * B @ A, on a grid of at most {side} x {side} of every matrix. With so many entries every test of "
        "normality rejects, and entries of a product of low rank are not independent, so what counts is the distance: KS is the "
        "largest difference of the distribution functions, A^2/n their squared difference with weight on the tails; so few "
        "independent entries at this KS distance would do to reject the Gaussian at 5 %. Modules of different s make a mixture "
        "with heavy tails; divided by their own s, that part of the kurtosis is gone."
    )
    return Section(intro, parts, "are the weights Gaussian?")


def _shown(pooled: Pooled) -> list[tuple[str, Distribution]]:
    return [*list(pooled.adapters.items())[:MOST_ROWS], ("averaged", pooled.averaged)]


def _shape_table(pooled: Pooled, levels: Sequence[str]) -> HtmlTable:
    rows: list[Sequence[Cell] | str] = []
    for level in levels:
        rows.append(_LEVEL_TITLES[level])
        for name, distribution in _shown(pooled):
            shape = distribution.shapes[level]
            values = [f"{value:.4f}" for value in (shape.ks_distance, shape.anderson_darling)]
            values = [f"{shape.s:.2e}", f"{shape.excess_kurtosis:.2f}", *values, f"{shape.num_to_reject:,.0f}", f"{shape.num:,}"]
            rows.append([Cell(name), *(Cell("-" if value == "nan" else value) for value in values)])
    return HtmlTable(["adapter", "s", "excess kurtosis", "KS distance", "A^2/n", "entries to reject", "entries"], rows)


def _sparsity_table(pooled: Pooled) -> HtmlTable:
    rows: list[Sequence[Cell] | str] = []
    for name, distribution in _shown(pooled):
        shape = distribution.shapes["as they are"]
        rows.append([Cell(name), Cell(f"{shape.zeros:.2%}"), *(Cell(f"{value:.1%}") for value in shape.below.values())])
    rows.append([Cell("N(0, s^2)"), Cell("0.00%"), *(Cell(f"{gaussian_below(threshold):.1%}") for threshold in THRESHOLDS)])
    return HtmlTable(["adapter", "exactly 0", *(f"< {threshold:g} s" for threshold in THRESHOLDS)], rows)


def _factors(measures: RoundMeasures) -> Section:
    pooled = {name: of_factor for name, of_factor in measures.pooled.items() if name != "updates"}
    if not pooled:
        return Section(parts=[Part(note="The adapters differ in r: their factors have no common average.")], title="the factors")
    parts = [Part(svg=analysis_plots.factors_plot(pooled), alternative=f"Densities. {_IN_TABLES}")]
    parts += [Part(name, table=_shape_table(of_factor, ["as they are", "per module"])) for name, of_factor in pooled.items()]
    intro = (
        "lora_A starts at a uniform distribution that all adapters of a round share (excess kurtosis -1.2), lora_B at zero. "
        "The averages here are those of the factors apart, as centralize.method=factor_mean takes them."
    )
    return Section(intro, parts, "the factors")


def _pairs(measures: RoundMeasures) -> Section:
    if len(measures.adapters) < 2:
        return Section(parts=[Part(note="One adapter has nothing to be compared with.")], title="how adapters lie to one another")
    matrices = {f"cosine, {name}": (values, 0.0, 1.0) for name, values in measures.cosines.items()}
    matrices["like signs, updates"] = (measures.sign_agreement, 0.5, 1.0)
    modules, names = measures.modules, list(measures.modules)
    randoms = {kind: sum(_per_module(measures, f"{kind}_random").values()) / len(names) for kind in ("column", "row")}
    overlaps = {
        "columns (lora_B)": _per_module(measures, "column_overlap"),
        "rows (lora_A)": _per_module(measures, "row_overlap"),
    }
    signs = {
        "like signs": _per_module(measures, "sign_agreement"),
        "cosine": {name: module.variance.mean_cosine or 0.0 for name, module in modules.items()},
    }
    rank = sum(_per_module(measures, "effective_rank").values()) / len(names)
    by_chance = {f"random subspaces, r/d = {randoms['column']:.3f}": randoms["column"]}
    levels = {"0.5: independent signs": 0.5, "0: orthogonal": 0.0}
    is_small = len(measures.adapters) <= _MOST_SQUARE
    parts = [
        Part(svg=analysis_plots.matrices_plot(matrices, measures.adapters) if is_small else "", alternative=_of_pairs(matrices)),
        Part("Signs and cosines, by module", svg=modules_plot(signs, "mean over pairs", levels), alternative=range_of(signs)),
        Part(
            "Overlap of the subspaces",
            svg=modules_plot(overlaps, "mean cosine squared", by_chance),
            alternative=range_of(overlaps),
        ),
    ]
    intro = (
        "Signs of independent updates agree in half of the entries. Overlap is the mean squared cosine of the principal angles "
        "between what two updates write to (columns) or read from (rows): r/d for random subspaces, 1 for the same one. "
        f"Effective rank of an update, (sum s^2)^2 / sum s^4: {rank:.1f} on average."
    )
    return Section(intro, parts, "how adapters lie to one another")


def _of_pairs(matrices: Mapping[str, tuple[PairMatrix, float, float]]) -> str:
    pairs = {
        title: [value for row, line in enumerate(values) for value in line[:row]] for title, (values, _, _) in matrices.items()
    }
    said = "; ".join(f"{title}: {min(values):.2f} to {max(values):.2f}" for title, values in pairs.items() if values)
    return f"A square of pairs of adapters for every measure, from the least to the largest. {said}."


def _norms(measures: RoundMeasures) -> Section:
    has_weights = all(module.weight_norm for module in measures.modules.values())

    def scaled(module: ModuleMeasures, norm: float) -> float:
        return norm / module.weight_norm if has_weights and module.weight_norm else norm

    series = {
        "adapters, root mean square": {name: scaled(module, _typical(module)) for name, module in measures.modules.items()},
        "mean of the updates": {name: scaled(module, module.mean_norm) for name, module in measures.modules.items()},
    }
    if measures.own:
        series["update of the run"] = {name: scaled(module, module.own_norm or 0.0) for name, module in measures.modules.items()}
    svg = modules_plot(series, "||update|| / ||W||" if has_weights else "||update||")
    return Section(
        "", [Part(svg=svg, alternative=range_of(series), table=_norms_table(measures, has_weights))], "norms of the updates"
    )


def _typical(module: ModuleMeasures) -> float:
    return _root_sum(module.norms.values()) / math.sqrt(len(module.norms))


def _root_sum(norms: Iterable[float]) -> float:
    return math.sqrt(sum(norm**2 for norm in norms))


def _norms_table(measures: RoundMeasures, has_weights: bool) -> HtmlTable:
    groups: dict[tuple[str, str], list[ModuleMeasures]] = {}
    for module in measures.modules.values():
        groups.setdefault((module.kind, module.projection), []).append(module)
    rows = []
    for group, of_group in sorted(groups.items()):
        weights = _root_sum(module.weight_norm or 0.0 for module in of_group)
        norms = [_root_sum(map(_typical, of_group)), _root_sum(module.mean_norm for module in of_group)]
        cells = [Cell(f"{norm:.3f}", f"{100 * norm / weights:.2f} %" if has_weights else "") for norm in norms]
        rows.append([Cell(" ".join(group)), *cells, Cell(f"{weights:.1f}" if has_weights else "-")])
    heads = ["matrices", "adapters", "mean of the updates", "weights of the root"]
    return HtmlTable(heads, rows, caption="Frobenius norms, and their share of the weights'")


def _prior(priors: Mapping[str, AdapterPrior], train: TrainConfig) -> Section:
    steps = max(prior.steps for prior in priors.values())
    decays = [decay for decay in (train.weight_decay, *_LARGER_DECAYS) if decay >= train.weight_decay and decay]
    curves = {
        f"{decay:g}": shrinkage_curve(train.model_copy(update={"weight_decay": decay}), steps) for decay in dict.fromkeys(decays)
    }
    rows = []
    for name, prior in list(priors.items())[:MOST_ROWS]:
        norms = (prior.lora_A_start, prior.lora_A_moved, prior.shrinkage * prior.lora_A_start, prior.lora_B_moved)
        texts = [name, str(prior.steps), f"{100 * prior.shrinkage:.3g} %", *(f"{norm:.3g}" for norm in norms)]
        rows.append([Cell(text) for text in texts])
    heads = ["adapter", "steps", "total shrinkage", "||A_0||", "||A - A_0||", "decay alone", "||B||"]
    intro = (
        "AdamW takes lr_t * weight_decay of every factor at each step: over a training 1 - prod(1 - lr_t * weight_decay), "
        "whatever the gradients do. The figure shows it for this run's weight decay (thick) and for larger ones under the same "
        "schedule. Decay alone would have moved A by shrinkage * ||A_0||; compare how far it moved."
    )
    table = HtmlTable(heads, rows, caption="Frobenius norms over all modules; A_0 is where all adapters of the round began")
    svg = analysis_plots.shrinkage_plot(curves, f"{train.weight_decay:g}", verdicts.PRIOR_ACTIVE)
    shown = f"Total shrinkage over the steps for a weight decay of {', '.join(curves)}. The table has the shrinkage of this run."
    return Section(intro, [Part(svg=svg, alternative=shown, table=table)], "weight decay as a prior")


def line_section(line: Line) -> Section:
    """Returns the chapter of the loss along the line."""
    at_one = min(range(len(line.alphas)), key=lambda index: abs(line.alphas[index] - 1))
    rows = []
    for name, losses in line.losses.items():
        label = f"{name} (protected)" if name in line.protected else name
        near = Cell(f"{losses[at_one]:.4f}", f"at {line.alphas[at_one]:.2f}")
        lowest = Cell(f"{min(losses):.4f}", f"at {line.best(name):.2f}")
        rows.append([Cell(label), Cell(line.splits[name]), Cell(f"{losses[0]:.4f}"), near, lowest])
    intro = (
        f"Cross-entropy per label token of base {line.round_index - 1} + alpha * update of round {line.round_index}, on at most "
        f"{line.max_clips} clips of each set. A minimum short of 1 says that a smaller step would have been better for that set, "
        "one beyond 1 a larger one."
    )
    table = HtmlTable(["set", "split", "loss at 0", "loss near 1", "lowest"], rows)
    title = f"Loss along the update of round {line.round_index}"
    shown = "The change of the loss over alpha, a line for every set. The table has the loss at 0, near 1 and at the minimum."
    return Section(intro, [Part(svg=analysis_plots.line_plot(line), alternative=shown, table=table)], title)
