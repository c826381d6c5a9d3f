"""How much memory is free, so that what cannot fit is refused before training and not killed in the middle of it."""

import gc
import shutil
from pathlib import Path

import torch

SHARED_MEMORY = Path("/dev/shm")
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_bytes(device: torch.device, shared: bool = False) -> int | None:
    """Free bytes on `device`; None where the system does not tell.

    Host memory is what the kernel calls available, within the container's limit if there is one. Shared memory is bounded by the
    size of /dev/shm as well, which containers often set to 64 MB.
    """
    if device.type == "cuda":
        gc.collect()  # graphs and worlds that are gone, and what torch keeps for later, count as taken
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    known = [_available(), _container()]
    if shared and SHARED_MEMORY.is_dir():
        known.append(shutil.disk_usage(SHARED_MEMORY).free)
    return min((value for value in known if value is not None), default=None)


def _available() -> int | None:
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _container() -> int | None:
    limit = _LIMIT.read_text().strip() if _LIMIT.exists() else "max"
    return None if limit == "max" else int(limit) - int(_USED.read_text())
