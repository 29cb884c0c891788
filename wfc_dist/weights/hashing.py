"""sha256 of tensors and of sets of tensors, independent of file layout."""

import hashlib
from collections.abc import Mapping

import torch

from wfc_dist import activity
from wfc_dist.storage import durable


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Returns the hex sha256 of dtype, shape and bytes of one tensor (any dtype, any device; copied to the CPU)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    activity.moved()
    return digest.hexdigest()


def content_sha256(tensor_hashes: Mapping[str, str]) -> str:
    """Returns one sha256 over named tensor hashes, in name order: the identity of a base or an adapter."""
    return durable.sha256_json(sorted(tensor_hashes.items()))
