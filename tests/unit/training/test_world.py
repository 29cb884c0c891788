"""Tests of wfc_dist.training.world: what can be said before a process group exists."""

import pytest
import torch
import torch.distributed as dist

from wfc_dist.errors import ConfigError
from wfc_dist.training.world import join_world


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_where_there_is_none_is_refused_by_name() -> None:
    had_a_group = dist.is_initialized()  # another test's
    with pytest.raises(ConfigError, match=r"cluster\.gpus_per_worker asks for a GPU on .* set cluster\.gpus_per_worker to 0"):
        join_world(1, 0, 0, "127.0.0.1", 0, device="cuda")
    assert dist.is_initialized() == had_a_group
