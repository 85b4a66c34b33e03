"""A fingerprint of the weights, cheap enough to take with every update.

One weight in `STRIDE` is read, always the same ones, and hashed with SHA-256. A gradient step
moves practically every trained weight, so two updates that differ anywhere differ here. It can
miss damage to single weights (a flipped bit is seen with probability 1/`STRIDE`); files are
guarded by a hash of every byte instead.
"""

from __future__ import annotations

import hashlib

import torch

# A prime, so that the sampled columns wander through matrices whose sizes are powers of two.
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
    # From the device at once: to ask it for each of hundreds takes longer than to hash them.
    here = torch.cat(samples).cpu().split([len(sample) for sample in samples])
    for (name, parameter), sample in zip(named, here, strict=True):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
