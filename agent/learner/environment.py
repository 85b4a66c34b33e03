"""The environment of floating-point results, and how to make them repeatable."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import tokenizers
import torch
import transformers

from agent.learner.engine.fused_layers import kernels_for
from agent.models.loading import LoadedModel


def make_deterministic(threads: int | None = None) -> None:
    """Makes every run of the same update on the same device kind give the same bits.

    Call once, before the first CUDA call: cuBLAS reads its variable when it is initialised.

    Args:
        threads: CPU threads; sums are split among them, so their number is part of the result.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # On by default with deterministic algorithms, for debugging: it writes every new buffer twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # TF32 products on CUDA; sums and the weights stay fp32.
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def products_rounded(precision: str) -> Iterator[None]:
    """Sets the precision of fp32 matrix products, see `torch.set_float32_matmul_precision`.

    A CUDA graph keeps the precision of its capture.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def describe_environment(loaded: LoadedModel) -> dict[str, str]:
    """The fingerprint that is stored with each ledger row."""
    environment = {
        "device": device_name(loaded.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "model": loaded.name,
        "revision": loaded.revision,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
    }
    if loaded.device.type == "cpu":
        environment["machine"] = platform.machine()
        environment["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        environment["threads"] = str(torch.get_num_threads())
    else:
        environment["cuda"] = str(torch.version.cuda)
        environment["kernels"] = kernels_for(loaded.device.type)
    return environment
