"""How much memory this process takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def memory() -> tuple[int, int]:
    """Bytes taken, and what there is: of the GPU once one is in use, else of RAM."""
    if torch.cuda.is_initialized():
        return torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[1]
    page = os.sysconf("SC_PAGE_SIZE")
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * page, os.sysconf("SC_PHYS_PAGES") * page
