"""Shrinkage by hand, and the thresholds of the verdicts."""

import dataclasses
import math

import pytest
import torch

from wfc_dist.analysis import verdicts
from wfc_dist.analysis.decay import AdapterPrior, adapter_prior, shrinkage, shrinkage_curve
from wfc_dist.analysis.measure import grid_side, measure_round
from wfc_dist.analysis.module_names import place_of
from wfc_dist.config.training import TrainConfig
from wfc_dist.errors import InputError
from wfc_dist.merging.factors import Factors
from wfc_dist.merging.methods.factor_mean import factor_mean
from wfc_dist.merging.methods.mean import mean
from wfc_dist.training.model import init_lora_a_

NAME = "model.encoder.layers.0.self_attn.q_proj"


def random_factors(seed, *, lora_r=16, size=192, gain=1.0):
    generator = torch.Generator().manual_seed(seed)
    a_RI, b_OR = torch.randn(lora_r, size, generator=generator), gain * torch.randn(size, lora_r, generator=generator)
    return Factors(a_RI, b_OR, 0.5)


def measured(adapters, own=None):
    return measure_round(1, {name: {NAME: item} for name, item in adapters.items()}, own, {NAME: 10.0})


def test_shrinkage_is_the_product_over_the_schedule():
    train = TrainConfig(max_steps=30, lr=0.5, weight_decay=0.1, schedule="cosine", warmup_steps=5)
    kept = 1.0
    for step in range(1, 31):
        lr = 0.5 * step / 5 if step < 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 26)) / 2
        kept *= 1 - lr * 0.1

    assert shrinkage(train, 30) == pytest.approx(1 - kept, rel=1e-12)
    curve = shrinkage_curve(train, 30, num_points=4)
    assert [step for step, _ in curve] == [0, 8, 15, 22, 30]  # a quarter of 30 is rounded to even
    assert curve[-1][1] == pytest.approx(1 - kept, rel=1e-12)


def test_the_papers_code_shrinks_by_one_and_a_half_percent_at_most():
    constant = TrainConfig(max_steps=30_000, lr=1e-3, weight_decay=5e-4, schedule="constant", warmup_steps=0)
    assert shrinkage(constant, 30_000) == pytest.approx(1 - math.exp(-0.015), rel=1e-5)  # PAPER.md: 5e-7 a step
    assert shrinkage(constant.model_copy(update={"weight_decay": 0.0}), 30_000) == 0
    assert shrinkage(constant.model_copy(update={"weight_decay": 1e4}), 2) == 1


def test_movement_is_measured_from_the_rounds_own_start():
    start = torch.empty(4, 32)
    init_lora_a_(start, 11, NAME)
    item = Factors(start + 0.25, torch.full((8, 4), 0.5), 1.0)

    found = adapter_prior({NAME: item}, TrainConfig(max_steps=300), 7, 11)

    assert found.lora_A_start == pytest.approx(float(start.double().norm()), rel=1e-12)
    assert found.lora_A_moved == pytest.approx(0.25 * math.sqrt(128), rel=1e-6)  # float32 holds start + 0.25
    assert found.lora_B_moved == pytest.approx(0.5 * math.sqrt(32)) and found.steps == 7


def test_variance_verdict_of_independent_identical_and_single_adapters():
    independent = measured({str(seed): random_factors(seed) for seed in range(3)})
    identical = measured({str(seed): random_factors(0) for seed in range(3)})

    assert verdicts.variance_verdict(independent).word == "confirmed"
    assert verdicts.variance_verdict(identical).word == "refuted"
    assert verdicts.variance_verdict(measured({"a": random_factors(0)})).word == "cannot be told"
    assert verdicts.variance_verdict(identical).sentence == (
        "variance falls as 1/N: measured 1.000 (mean cosine of the updates +1.000), expected 1/3 = 0.333: refuted"
    )
    item = independent.modules[NAME]
    assert identical.modules[NAME].row_overlap == pytest.approx(1) and item.row_overlap == pytest.approx(
        item.row_random, abs=0.05
    )
    assert identical.sign_agreement[0][1] == 1 and item.sign_agreement == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("cosine", "word"), [(0.02, "confirmed"), (0.2, "in part"), (0.6, "refuted")])
def test_variance_thresholds(cosine, word):
    base = measured({"a": random_factors(0), "b": random_factors(1)})
    split = dataclasses.replace(base.variance, ratio=0.5 + cosine / 2, cross=cosine / 2, mean_cosine=cosine)
    assert verdicts.variance_verdict(dataclasses.replace(base, variance=split)).word == word


def test_gaussian_verdict_tells_a_mixture_of_scales_from_one_gaussian():
    # rows of B of one norm and an A with many rows make entries Gaussian; modules 10 times as large make a mixture
    def normed(seed, gain):
        item = random_factors(seed, lora_r=192)
        return Factors(item.a_RI, gain * item.b_OR / item.b_OR.norm(dim=1, keepdim=True), 1.0)

    def both(gain):
        return measure_round(1, {"a": {NAME: normed(0, 1.0), "model.other": normed(1, gain)}}, None, {})

    assert verdicts.gaussian_verdict(both(1.0)).word == "confirmed"
    assert verdicts.gaussian_verdict(both(10.0)).word == "in part"
    assert verdicts.gaussian_verdict(measured({"a": random_factors(0, lora_r=1)})).word == "refuted"  # products of two normals
    zero = Factors(torch.ones(2, 8), torch.zeros(8, 2), 1.0)
    assert verdicts.gaussian_verdict(measured({"a": zero})).word == "cannot be told"


@pytest.mark.parametrize(("share", "word"), [(2e-4, "refuted"), (0.02, "in part"), (0.3, "confirmed")])
def test_prior_verdict(share, word):
    found = verdicts.prior_verdict(2, [AdapterPrior(10, share, 1.0, 1.0, 1.0)], 5e-4)
    assert (found.word, found.round_index) == (word, 2) and "in 10 steps" in found.sentence


def test_the_runs_own_update_is_compared_with_the_mean():
    adapters = {"a": random_factors(0), "b": random_factors(1)}
    items, halves = list(adapters.values()), [0.5, 0.5]
    plain, doubled = (measured(adapters, {NAME: mean(items, halves).scaled(scale)}) for scale in (1.0, 2.0))
    apart = measured(adapters, {NAME: factor_mean(items, halves)})

    assert plain.own.ratio == pytest.approx(plain.variance.ratio, rel=1e-10) and plain.own.cosine == pytest.approx(1, rel=1e-10)
    assert doubled.own.ratio == pytest.approx(4 * plain.variance.ratio, rel=1e-10)
    assert doubled.modules[NAME].own_norm == pytest.approx(2 * plain.modules[NAME].mean_norm, rel=1e-10)
    exact = sum(0.5 * item.scaling * item.b_OR.double() @ item.a_RI.double() for item in items)
    other = factor_mean(items, halves).dense()
    assert apart.own.cosine == pytest.approx(float((exact * other).sum() / exact.norm() / other.norm()), rel=1e-10)


def test_measures_do_not_depend_on_threads_and_ranks_may_differ():
    adapters = {"a": random_factors(0), "b": random_factors(1, lora_r=8)}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = measured(adapters)
        torch.set_num_threads(2)
        assert measured(adapters) == one and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert list(one.pooled) == ["updates"] and list(one.cosines) == ["updates"]


def test_adapters_of_other_modules_are_refused():
    with pytest.raises(InputError, match="adapter b and adapter a differ in model"):
        measured({"a": random_factors(0), "b": random_factors(0, size=64)})
    with pytest.raises(InputError, match="delta and adapter a differ"):
        measured({"a": random_factors(0)}, {NAME: mean([random_factors(0, size=64)], [1.0])})


def test_places_and_grids():
    assert place_of(NAME) == ("encoder self", "q_proj", 0)
    assert place_of("model.decoder.layers.11.encoder_attn.v_proj") == ("decoder cross", "v_proj", 11)
    assert place_of("lm_head") == ("all", "lm_head", -1)
    assert (grid_side(4, 36), grid_side(513, 80), grid_side(10**6, 80)) == (192, 19, 16)
