"""Student's t against the table of every textbook, and against its closed forms."""

import math

import pytest

from wfc_dist.evaluation.student import both_tails, quantile


@pytest.mark.parametrize(
    ("freedom", "confidence", "t"),
    [(1, 0.95, 12.706205), (2, 0.95, 4.302653), (4, 0.9, 2.131847), (9, 0.95, 2.262157), (9, 0.99, 3.249836), (30, 0.8, 1.310415),
     (199, 0.95, 1.971957), (1e6, 0.95, 1.959966)],
)  # fmt: skip
def test_quantiles_of_the_table(freedom, confidence, t):
    assert quantile(confidence, freedom) == pytest.approx(t, rel=1e-6)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 1.0, 2.5, 40.0])
def test_both_tails_of_one_and_of_two_degrees_of_freedom(t):
    assert both_tails(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
    assert both_tails(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)


def test_quantiles_and_tails_are_each_others_inverse_between_whole_numbers():
    for freedom in (1.0, 1.7, 3.2, 11.5, 60.1, 5000.0):
        for confidence in (0.01, 0.5, 0.95, 0.999):
            assert both_tails(quantile(confidence, freedom), freedom) == pytest.approx(1 - confidence, rel=1e-8)
