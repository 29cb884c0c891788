"""Every measure of geometry against a dense float64 computation, and against updates whose answer is known."""

import math

import numpy as np
import pytest
import torch

from wfc_dist.analysis import geometry
from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import Factors, concatenated

ROUNDING = 1e-10  # float64 sums of some thousand terms, taken in another order


def factors(seed, *, out=40, into=56, lora_r=4, scaling=2.0):
    generator = torch.Generator().manual_seed(seed)
    a_RI, b_OR = torch.randn(lora_r, into, generator=generator), torch.randn(out, lora_r, generator=generator)
    return Factors(a_RI, b_OR, scaling)


def columns(adapter):
    return low_rank.directions(concatenated([adapter], [1.0]))[0]


def dense(item):
    return item.scaling * (item.b_OR.double().numpy() @ item.a_RI.double().numpy())


def test_inner_products_sums_and_split_are_those_of_the_dense_updates():
    items = [factors(0), factors(1, lora_r=7, scaling=0.5), factors(2)]  # ranks and scalings may differ
    updates = [dense(item) for item in items]
    gram = np.array([[np.sum(first * second) for second in updates] for first in updates])

    split = geometry.variance_split(geometry.update_gram(items))

    np.testing.assert_allclose(geometry.update_gram(items).numpy(), gram, rtol=ROUNDING, atol=ROUNDING * gram.max())
    np.testing.assert_allclose(geometry.entry_sums(items).numpy(), [update.sum() for update in updates], rtol=1e-9)
    mean_square = np.mean([np.sum(update**2) for update in updates])
    assert split.ratio == pytest.approx(np.sum(np.mean(updates, axis=0) ** 2) / mean_square, rel=ROUNDING)
    pairs = sum(gram[i, j] for i in range(3) for j in range(3) if i != j)
    assert split.cross == pytest.approx(pairs / 9 / mean_square, rel=ROUNDING)
    assert split.ratio == split.own + split.cross and split.own == 1 / 3


def test_identical_orthogonal_and_opposite_updates():
    item = factors(3)
    identical = geometry.variance_split(geometry.update_gram([item] * 4))
    assert identical.ratio == pytest.approx(1, rel=ROUNDING) and identical.mean_cosine == pytest.approx(1, rel=ROUNDING)

    left, right = factors(4), factors(5)
    left.b_OR[20:], right.b_OR[:20] = 0, 0  # they write to other rows
    orthogonal = geometry.variance_split(geometry.update_gram([left, right]))
    assert orthogonal.ratio == 0.5 and orthogonal.cross == 0

    opposite = geometry.update_gram([item, Factors(item.a_RI, -item.b_OR, item.scaling)])
    assert geometry.variance_split(opposite).ratio == pytest.approx(0, abs=ROUNDING)


def test_independent_updates_keep_one_nth():
    gram = geometry.update_gram([factors(seed, out=300, into=300, lora_r=16) for seed in range(3)])
    split = geometry.variance_split(gram)
    # the cosine of two independent updates has a standard deviation of 1 / sqrt(out * in) = 0.003
    assert split.ratio == pytest.approx(1 / 3, abs=0.02) and abs(split.mean_cosine) < 0.02


def test_one_adapter_and_zero_updates_have_no_answer():
    assert geometry.variance_split(geometry.update_gram([factors(0)])).mean_cosine is None
    zero = Factors(torch.ones(2, 5), torch.zeros(6, 2), 1.0)
    assert math.isnan(geometry.variance_split(geometry.update_gram([zero, zero])).ratio)
    none = columns(zero)
    assert none.shape == (6, 0) and geometry.effective_rank(torch.ones(0)) == 0 and math.isnan(geometry.overlap(none, none))


def test_cosines_and_their_mean():
    items = [factors(6), factors(7), factors(8)]
    flat = np.stack([dense(item).ravel() for item in items])
    wanted = flat @ flat.T / np.outer(*[np.linalg.norm(flat, axis=1)] * 2)

    found = geometry.cosines(geometry.update_gram(items))

    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-8, atol=1e-10)
    assert geometry.mean_off_diagonal(found) == pytest.approx((wanted.sum() - 3) / 6, abs=1e-10)
    np.testing.assert_allclose(
        geometry.matrix_gram([item.a_RI for item in items]).numpy(),
        [[np.sum(i.a_RI.double().numpy() * j.a_RI.double().numpy()) for j in items] for i in items], rtol=1e-10, atol=1e-10,
    )  # fmt: skip


def test_effective_rank_counts_what_prevails():
    assert geometry.effective_rank(torch.ones(6)) == pytest.approx(6)
    assert geometry.effective_rank(torch.tensor([1.0, 0.0])) == 1


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    p, q = columns(factors(10)), columns(factors(11, lora_r=6))
    # the squared cosines are the nonzero eigenvalues of P_p P_q P_p
    projector = (p @ p.T).numpy()
    eigenvalues = np.sort(np.linalg.eigvalsh(projector @ (q @ q.T).numpy() @ projector))[::-1][:4]

    assert geometry.overlap(p, q) == pytest.approx(eigenvalues.mean(), abs=1e-10)


def test_overlap_of_equal_orthogonal_and_random_subspaces():
    eye = torch.eye(30, dtype=torch.float64)
    assert geometry.overlap(eye[:, :4], eye[:, 4:8]) == 0
    assert geometry.overlap(eye[:, :4], eye[:, :8]) == 1, "one inside the other"
    spaces = [columns(factors(seed, out=200, lora_r=8)) for seed in range(12)]
    found = [geometry.overlap(spaces[i], spaces[i + 1]) for i in range(11)]
    # mean of 11 values whose standard deviation is about sqrt(2) / 200
    assert np.mean(found) == pytest.approx(geometry.random_overlap(spaces[0], spaces[1]), abs=0.01)
    assert geometry.random_overlap(spaces[0], spaces[1]) == 8 / 200


def test_signs_by_hand():
    entries = torch.tensor([[1.0, -2, 3, 0], [4, 5, 6, 7], [-1, 2, -3, 1]])
    found = geometry.sign_agreement(entries)
    assert found.tolist()[0] == pytest.approx([1, 2 / 3, 0]) and found[1, 2] == 0.5
    assert torch.equal(found, found.T)
