"""What fits is estimated from the sizes of the model, and never more than the memory."""

import json

import pytest

from wfc_dist.config.training import TrainConfig
from wfc_dist.coordinator.machine import MOST_WINDOWS, ModelSize, model_size, this_machine, windows_that_fit
from wfc_dist.coordinator.room import least_bytes

SMALL = ModelSize(768, 12, 12)
FP32, BF16 = TrainConfig(precision="fp32"), TrainConfig(precision="bf16")


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 39), ("base", 74), ("small", 244), ("medium", 769), ("large-v3", 1550), ("large-v3-turbo", 809)],
)
def test_the_sizes_are_those_of_whisper(name, millions):
    size = model_size(f"openai/whisper-{name}", None)
    assert size is not None
    assert size.num_parameters / 1e6 == pytest.approx(millions, rel=0.06)


def test_a_models_own_configuration_counts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 64, "encoder_layers": 2, "decoder_layers": 1}))
    assert model_size("openai/whisper-small", tmp_path) == ModelSize(64, 2, 1)
    (tmp_path / "config.json").write_text("{}")
    assert model_size("openai/whisper-small", tmp_path) is None
    assert model_size("org/mine", None) is None


def test_more_memory_holds_more_windows():
    found = [windows_that_fit(SMALL, FP32, 1_000_000, gb * 10**9) for gb in (1, 8, 12, 24, 80)]
    assert found[0] == 0 and found == sorted(found) and 0 < found[1] < found[-1] == MOST_WINDOWS
    assert windows_that_fit(SMALL, BF16, 1_000_000, 8 * 10**9) >= found[1]


def test_what_fits_is_within_the_memory():
    for gb in (4, 8, 16):
        num = windows_that_fit(SMALL, FP32, 1_000_000, gb * 10**9)
        assert least_bytes(FP32, SMALL.num_parameters, 1_000_000) + num * SMALL.window_bytes("fp32") <= gb * 10**9


def test_this_machine_has_cores_and_memory():
    machine = this_machine()
    assert machine.num_cores >= 1 and machine.memory_bytes > 10**8
