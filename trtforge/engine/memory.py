"""How much memory a build is likely to take, and how much there is for builds."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_BYTES_PER_WEIGHT_BYTE = 2.7
_FIXED_BYTES = 300 * 10**6
"""Source: measured with TensorRT-RTX 1.7.1, peaks of resident memory. Of squeezenet, mobilenetv3,
unet, resnet50 and vit (5 to 346 MB) the estimate is within 4 %, of yolo (25 MB) 10 % too low, of
vgg19 (514 MB) 24 % too high. Networks of hundreds of generated kernels take more: densenet121
603 MB, not 388."""


def build_estimate_bytes(weight_bytes: int) -> int:
    """Resident memory in bytes that building a model with so many bytes of weights takes."""
    return int(_BYTES_PER_WEIGHT_BYTE * weight_bytes) + _FIXED_BYTES


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory in bytes that new work may take, None where the system (not Linux) does not tell.

    The least of what the machine has left and what each control group around this process has.
    File pages that the kernel can drop count as free, in both.

    Args:
        root: the file system's root; another one for tests.

    Sources: proc(5), /proc/meminfo; docs.kernel.org, admin-guide/cgroup-v1/memory and cgroup-v2.
    """
    free = [*_machine(root), *_control_groups(root)]
    return max(0, min(free)) if free else None


def _machine(root: Path) -> Iterator[int]:
    available = _fields(root / "proc/meminfo").get("MemAvailable:")
    if available is not None:
        yield available * 1024


def _control_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    for _, controllers, name in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers:
            mount, files = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside of a container the group is mounted as the root; its name does not lead there.
        inside = PurePosixPath(name.lstrip("/"))
        for group in dict.fromkeys((inside, *inside.parents)):
            folder = root / mount / group
            limit, used = (_number(folder / file) for file in files[:2])
            if limit is not None and used is not None:
                yield limit - used + _fields(folder / "memory.stat").get(files[2], 0)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file, or it says `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _fields(path: Path) -> dict[str, int]:
    """The lines `name number ...` of a file; none where there is no such file."""
    try:
        words = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
