"""The catalog says what the functions take; options are checked; every method keeps the identities that its page claims."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from wfc_dist.config import loading
from wfc_dist.errors import ConfigError, InputError, WfcError
from wfc_dist.merging import catalog, merge_method
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import AnyDelta, DenseDelta, Factors, ModuleDelta, normalized
from wfc_dist.merging.recipe import Recipe, merged_update

OUT, IN, LORA_R = 24, 16, 2
ROOT = Path(__file__).parents[3]


def adapter(seed: int, size: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    a_RI, b_OR = torch.randn(LORA_R, IN, generator=generator), torch.randn(OUT, LORA_R, generator=generator)
    return Factors(a_RI, b_OR * size, 2.0, Curvature(fisher_OI=torch.rand(OUT, IN, generator=generator) + 0.1))


def curvature(seed: int) -> Curvature:
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = torch.randn(IN, 40, generator=generator), torch.randn(OUT, 40, generator=generator)
    return Curvature(None, inputs @ inputs.T / 40, outputs @ outputs.T / 40)


def inputs_of(method: str) -> dict[str, Any]:
    given = {"seed": 5, "past": [merge_method("mean")([adapter(90)], [1.0])], "previous": [curvature(91), curvature(92)]}
    return {name: given[name] for name in catalog.METHODS[method].needs if name in given}


def merged(method: str, items: list[Factors], weights: list[float] | None = None, **settings: Any) -> AnyDelta:
    inputs = settings.pop("inputs", inputs_of(method))
    options = catalog.resolved(method, settings.pop("options", {}))
    shares = normalized(weights or [1.0] * len(items))
    return merged_update(items, shares, Recipe(method, options, **settings), inputs)


def own(item: Factors) -> torch.Tensor:
    return item.scaling * item.b_OR.double() @ item.a_RI.double()


# Where K equal adapters give that adapter: with which options and inputs. None: they give it with no options at all.
EQUAL: dict[str, dict[str, Any] | None] = {
    "mean": {}, "factor_mean": {}, "trimmed_mean": {}, "tsv": {}, "svd": {}, "fisher": {},
    "task_arithmetic": {"options": {"lam": 1 / 3}}, "ties": {"options": {"density": 1.0}}, "dare": {"options": {"density": 1.0}},
    "boosted_tsv": {"options": {"beta": 1.0}}, "nesterov": {"options": {"lr": 1.0, "momentum": 0.0}},
    "ihr": {"inputs": {"previous": []}}, "model_stock": {}, "karcher": {}, "lors": {"options": {"lam": 1 / 3, "density": 1.0}},
}  # fmt: skip


def test_the_catalog_is_what_the_functions_take() -> None:
    for name, entry in catalog.METHODS.items():
        first, second, *rest = inspect.signature(merge_method(name)).parameters.values()
        assert (first.name, second.name) == ("factors", "weights")
        keywords = set(entry.options) | set(entry.needs) - {"fisher"}
        assert {parameter.name for parameter in rest} == keywords, name
        defaults = {parameter.name: parameter.default for parameter in rest if parameter.name in entry.options}
        assert defaults == {option: item.default for option, item in entry.options.items()}, name
        assert all(item.holds(item.default) for item in entry.options.values()), name
        assert set(entry.needs) <= set(catalog.INPUTS)


def test_every_method_has_a_file_a_test_and_a_line_of_documentation() -> None:
    files = {path.stem for path in (ROOT / "wfc_dist" / "merging" / "methods").glob("*.py")} - {"__init__"}
    page = (ROOT / "docs" / "merging.md").read_text()
    assert files == set(catalog.METHODS) == set(EQUAL) == set(re.findall(r"^\| `(\w+)` \|", page, flags=re.M))
    assert all(
        f"{option}={item.default:g}" in page for entry in catalog.METHODS.values() for option, item in entry.options.items()
    )


@pytest.mark.parametrize("method", sorted(catalog.METHODS))
@pytest.mark.parametrize("num_adapters", [1, 3])
def test_equal_adapters_merge_to_that_adapter(method: str, num_adapters: int) -> None:
    settings = dict(EQUAL[method])
    if "lam" in settings.get("options", {}):
        settings = {"options": settings["options"] | {"lam": 1 / num_adapters}}
    item = adapter(1)
    error = (merged(method, [item] * num_adapters, **settings).dense() - own(item)).abs().max()
    assert error <= 1e-6 * own(item).abs().max()  # float32, as updates are stored


@pytest.mark.parametrize("method", ["ties", "dare", "nesterov", "ihr", "boosted_tsv", "task_arithmetic", "lors"])
def test_equal_adapters_do_not_merge_to_that_adapter_where_the_page_says_so(method: str) -> None:
    item = adapter(1)
    assert (merged(method, [item] * 3).dense() - own(item)).norm() > 0.01 * own(item).norm()


@pytest.mark.parametrize("method", sorted(catalog.METHODS))
def test_zero_adapters_scale_and_weights(method: str) -> None:
    items = [adapter(1), adapter(2), adapter(3)]
    without_past = {"inputs": inputs_of(method) | ({"past": []} if method == "nesterov" else {})}

    zero = merged(method, [adapter(seed, size=0.0) for seed in range(3)], **without_past)
    assert not zero.dense().any()
    whole = merged(method, items, [1, 2, 3], **without_past).dense()
    assert not merged(method, items, [1, 2, 3], scale=0.0, **without_past).dense().any()
    assert torch.equal(merged(method, items, [1, 2, 3], scale=1.0, **without_past).dense(), whole)
    half = merged(method, items, [1, 2, 3], scale=0.5, **without_past).dense()
    assert torch.allclose(half, whole / 2, rtol=1e-12, atol=0)
    if method not in ("mean", "factor_mean"):
        left_out = merged(method, [*items, adapter(4)], [1, 2, 3, 0], **without_past).dense()
        assert torch.equal(left_out, whole), "an adapter of weight zero is as if it were not there"


@pytest.mark.parametrize("method", sorted(catalog.METHODS))
def test_the_norm_of_the_mean_is_matched_and_the_direction_kept(method: str) -> None:
    items = [adapter(1), adapter(2), adapter(6)]  # their mean cosine is above 0, so model_stock gives an update
    inputs = {"inputs": inputs_of(method)}
    free, matched = merged(method, items, **inputs).dense(), merged(method, items, norm="mean", **inputs).dense()
    mean = sum(own(item) / 3 for item in items)
    assert matched.norm() == pytest.approx(float(mean.norm()), rel=1e-6)
    assert torch.nn.functional.cosine_similarity(free.flatten(), matched.flatten(), dim=0) == pytest.approx(1.0, abs=1e-12)
    if method == "mean":
        assert torch.equal(free, matched)


def test_a_zero_update_stays_zero_at_any_norm() -> None:
    item = adapter(1)
    opposite = Factors(item.a_RI, -item.b_OR, item.scaling)
    assert not merged("ties", [adapter(1, 0.0), adapter(2, 0.0)], norm="mean").dense().any()
    assert merged("mean", [item, opposite], norm="mean").dense().abs().max() < 1e-12


@pytest.mark.parametrize("method", sorted(catalog.METHODS))
def test_updates_are_in_the_form_that_holds_fewer_numbers(method: str) -> None:
    update = merged(method, [adapter(1), adapter(2)])
    by_entry = inspect.signature(merge_method(method)).return_annotation is DenseDelta
    assert isinstance(update, DenseDelta if by_entry else ModuleDelta)
    for tensor in (update.dense_OI,) if isinstance(update, DenseDelta) else (update.a_RI, update.b_OR):
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"method": "tie"}, "centralize.method: 'tie' is no merge method; did you mean 'ties'"),
        (
            {"method": "ties", "options": {"densty": 0.2}},
            "centralize.options: 'densty' is no option of ties; did you mean 'density'",
        ),
        ({"options": {"density": 0.2}}, "'density' is no option of mean; it has none"),
        ({"method": "ties", "options": {"density": 0}}, r"density of ties is 0; it must be a number in \(0, 1\]"),
        ({"method": "trimmed_mean", "options": {"trim": 0.5}}, r"\[0, 0.5\)"),
        ({"method": "svd", "options": {"r": 1.5}}, "a whole number"),
        ({"method": "svd", "options": {"r": math.inf}}, "centralize.options.r: expected a finite number"),
        ({"method": "fisher", "options": {"floor": math.nan}}, "centralize.options.floor: expected a finite number, not nan"),
        ({"method": "nesterov", "scale": 0.5}, "set options.lr instead"),
        ({"method": "nesterov", "norm": "mean"}, "needs norm own and scale 1"),
        ({"norm": "median"}, "centralize.norm"),
        ({"scale": 0}, "centralize.scale"),
        ({"scale": "inverse"}, "centralize.scale"),
    ],
)
def test_wrong_methods_and_options_are_refused_by_name(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loading.parse(tree(block))


def tree(block: dict[str, Any]) -> dict[str, Any]:
    datasets = {"a": {"source": "a", "splits": {"train": "train.jsonl"}}}
    return {"run": {"name": "x"}, "base": {"model": "m"}, "datasets": datasets, "rounds": [["a"]], "centralize": block}


def test_options_come_from_files_and_overrides_and_keep_other_defaults() -> None:
    settings = loading.parse(tree({"method": "nesterov", "options": {"momentum": 0.5}})).centralize
    assert catalog.resolved(settings.method, settings.options) == {"lr": 0.7, "momentum": 0.5}
    assert loading.parse(tree({"scale": "inverse_task"})).centralize.scale == "inverse_task"
    assert loading.parse(tree({})).centralize.model_dump() == {
        "method": "mean", "options": {}, "weights": "uniform", "norm": "own", "scale": 1.0, "quorum": None, "late": "never",
        "gate": {"max_update_ratio": None, "max_growth": None, "canaries": [], "max_worse": 0.05, "action": "stop"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "weights", "message"),
    [
        (Recipe("mean"), [0.5], "2 adapters and 1 weights"),
        (Recipe("mean"), [0.5, 0.25], "sum 1"),
        (Recipe("ties"), [-0.5, 1.5], ">= 0"),
        (Recipe("mean"), [math.nan, 1.0], ">= 0"),
        (Recipe("tie"), [0.5, 0.5], "did you mean 'ties'"),
        (Recipe("ties", {"densty": 0.2}), [0.5, 0.5], "'densty' is no option of ties"),
        (Recipe("ties", {"density": 7.0}), [0.5, 0.5], "density of ties is 7"),
        (Recipe("nesterov"), [0.5, 0.5], "nesterov needs past: the updates of all earlier rounds"),
        (Recipe("ihr"), [0.5, 0.5], "ihr needs previous"),
    ],
)
def test_what_a_recipe_cannot_take_is_refused(recipe: Recipe, weights: list[float], message: str) -> None:
    with pytest.raises(WfcError, match=re.escape(message)):
        merged_update([adapter(1), adapter(2)], weights, recipe)


def test_adapters_of_other_shapes_and_an_unknown_norm_are_refused() -> None:
    wide = Factors(torch.randn(2, 9), adapter(1).b_OR[:, :2], 1.0)
    with pytest.raises(InputError, match="different shapes"):
        merged_update([adapter(1), wide], [0.5, 0.5], Recipe("ties"))
    with pytest.raises(InputError, match="0 adapters and 0 weights"):
        merged_update([], [], Recipe("mean"))
    with pytest.raises(InputError, match="norm 'zz' is unknown; give own or mean"):
        Recipe("mean", norm="zz")


def test_a_method_that_samples_takes_the_seed_of_the_recipe() -> None:
    one, again, other = (
        merged_update([adapter(1), adapter(2)], [0.5, 0.5], Recipe("dare", seed=seed)).dense() for seed in (3, 3, 4)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
