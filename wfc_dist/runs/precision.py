"""Which processors calculate in bfloat16 themselves, and what `precision: auto` becomes where that is known."""

from collections.abc import Mapping, Sequence, Set

from wfc_dist.runs.environment import cpu_flags

HALF = ("bf16", "fp16")
CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Either flag means products of bfloat16 that add in float32. Without one a CPU converts back and forth, slower than fp32."""
LEAST_CAPABILITY = (8, 0)
"""Of CUDA, from which on a GPU calculates in bfloat16. torch emulates it on older ones."""


def calculates_in_bf16(flags: Set[str], gpus: Sequence[tuple[int, int]] | None = None) -> bool:
    """Says whether a machine calculates in bfloat16 itself. Pure.

    Args:
        flags: What its CPU can do, as in /proc/cpuinfo.
        gpus: The compute capability of each GPU that is used; None where the CPU calculates.
    """
    if gpus is None:
        return bool(CPU_FLAGS & flags)
    return bool(gpus) and min(gpus) >= LEAST_CAPABILITY


def has_bf16(use_gpu: bool) -> bool:
    """Says whether this machine's CPU, or all GPUs that this process sees, calculate in bfloat16 themselves."""
    if not use_gpu:
        return calculates_in_bf16(cpu_flags())
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return calculates_in_bf16(frozenset(), [torch.cuda.get_device_capability(index) for index in range(num_gpus)])


def decided(found: Mapping[str, bool]) -> tuple[str, str]:
    """Returns what `auto` becomes, and why, for whoever watches. Pure.

    Args:
        found: Host -> whether it calculates in bfloat16 itself; every host that may train.
    """
    lacking = sorted(host for host, has in found.items() if not has)
    if not lacking and found:
        return "bf16", "every processor that trains has it"
    if len(lacking) == len(found):
        return "fp32", "no processor that trains has bf16"
    having = sorted(found.keys() - set(lacking))
    return "fp32", f"{', '.join(having)} has bf16, {', '.join(lacking)} has none, and a run has one precision"
