"""The digest of the weights, cheap enough for every update.

It is the SHA-256 of every `STRIDE`-th weight. A gradient step changes practically every trained
weight, so updates that differ have different digests. Damage to a single weight is seen only with
probability 1/`STRIDE`; so files are verified by a hash of every byte instead.
"""

from __future__ import annotations

import hashlib

import torch

# A prime, so that the sampled columns vary in matrices whose sizes are powers of two.
STRIDE = 251


@torch.no_grad()
def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over a fixed sample of every parameter's bits, in the order of their names.

    Args:
        model: any module; its parameters are fp32.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    named = sorted(model.named_parameters())
    samples = [parameter.detach().reshape(-1)[::STRIDE] for _, parameter in named]
    # One copy from the device: hundreds of copies would take longer than hashing.
    here = torch.cat(samples).cpu().split([len(sample) for sample in samples])
    for (name, parameter), sample in zip(named, here, strict=True):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
