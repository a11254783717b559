"""How much memory there is for builds: machine and control groups; how it is shared."""

import threading
import time
from pathlib import Path

import pytest

from trtforge.engine.memory import available_bytes, build_estimate_bytes
from trtforge.pipeline.memory_room import MemoryRoom

GIB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    """A file system's root with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


FREE = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n"}
V2 = {**FREE, "proc/self/cgroup": "0::/jobs/one\n"}
V1 = {**FREE, "proc/self/cgroup": "5:cpu:/x\n4:cpuset,memory:/job\n0::/\n"}


def group(folder: str, limit: int | str, used: int, droppable: int) -> dict[str, str]:
    stat = f"anon 1\nfile 2\ninactive_file {droppable}\n"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": stat,
    }


def old_group(folder: str, limit: int, used: int, droppable: int) -> dict[str, str]:
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {droppable}\n",
    }


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 5 kB\n"}, None),
        (FREE, 8 * GIB),
        (V2, 8 * GIB),
        ({**V2, **group("sys/fs/cgroup/jobs/one", 4 * GIB, 3 * GIB, GIB)}, 2 * GIB),
        ({**V2, **group("sys/fs/cgroup/jobs/one", "max", 3 * GIB, 0)}, 8 * GIB),
        ({**V2, **group("sys/fs/cgroup/jobs", 2 * GIB, GIB, 0)}, GIB),
        ({**V2, **group("sys/fs/cgroup", 1 * GIB, 2 * GIB, 0)}, 0),
        ({**V1, **old_group("sys/fs/cgroup/memory/job", 3 * GIB, 2 * GIB, GIB)}, 2 * GIB),
        ({**V1, **old_group("sys/fs/cgroup/memory", 2**63 - 4096, GIB, 0)}, 8 * GIB),
    ],
)
def test_available_is_the_least_of_machine_and_groups(
    files: dict[str, str], free: int | None, tmp_path: Path
) -> None:
    assert available_bytes(machine(tmp_path, files)) == free


def test_the_estimate_is_what_was_measured() -> None:
    """vgg19: 513.3 MB of weights, 1.36 GB at the peak; a small network: 280 MiB."""
    assert build_estimate_bytes(513_300_000) == pytest.approx(1.36e9, rel=0.25)
    assert build_estimate_bytes(0) == pytest.approx(280 * 2**20, rel=0.1)


def never() -> None:
    raise AssertionError("it had to wait")


def test_what_fits_does_not_wait_and_one_alone_always_fits() -> None:
    room = MemoryRoom(10)
    with room.taken(4, never), room.taken(6, never):
        pass
    with room.taken(99, never):
        pass
    with MemoryRoom(None).taken(99, never), MemoryRoom(None).taken(99, never):
        pass


def test_what_waits_goes_on_when_room_is_given_back() -> None:
    room, order = MemoryRoom(10), []

    def second() -> None:
        with room.taken(7, lambda: order.append("waits")):
            order.append("second")

    thread = threading.Thread(target=second)
    with room.taken(4, never):
        thread.start()
        deadline = time.monotonic() + 10
        while "waits" not in order and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first ends")
    thread.join(10)
    assert [step for step in order if step != "waits"] == ["first ends", "second"]


def test_waiting_ends_with_what_the_caller_raises() -> None:
    room = MemoryRoom(10)

    def cancelled() -> None:
        raise KeyboardInterrupt

    with room.taken(4, never), pytest.raises(KeyboardInterrupt), room.taken(7, cancelled):
        raise AssertionError("it got in")
    with room.taken(7, never):
        pass
