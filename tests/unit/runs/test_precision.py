"""What `precision: auto` is follows from what processors say of themselves."""

import pytest

from wfc_dist.runs.precision import calculates_in_bf16, decided


@pytest.mark.parametrize(
    ("flags", "gpus", "expected"),
    [
        ("fpu avx512f avx512_bf16", None, True),
        ("fpu avx512f amx_bf16 amx_tile", None, True),
        ("fpu avx512f avx512_vnni", None, False),
        ("", None, False),
        ("fpu", [(8, 0)], True),
        ("fpu", [(9, 0), (8, 6)], True),
        ("avx512_bf16", [(9, 0), (7, 5)], False),  # the CPU does not calculate where GPUs do
        ("avx512_bf16", [], False),
    ],
)
def test_a_processor_has_bf16_if_it_calculates_in_it_itself(flags, gpus, expected):
    assert calculates_in_bf16(frozenset(flags.split()), gpus) is expected


def test_one_host_without_it_makes_all_of_a_run_float32():
    assert decided({"a": True, "b": True})[0] == "bf16"
    assert decided({"a": False})[0] == "fp32"
    precision, why = decided({"b": False, "c": True, "a": True})
    assert precision == "fp32" and "a, c has bf16, b has none" in why
