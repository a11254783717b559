"""kill -9 at random moments: the store stays sound, the next build is as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from running import content_without_times, environment, trtforge

from trtforge import open_bundle
from trtforge.pipeline.store import LOCK_FILE

MOMENTS = 20


def start(digits: Path, store: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "trtforge.cli.main", "build", digits / "int8.yaml"]
    return subprocess.Popen(
        [*command, "--out", out, *options],
        env=environment(store),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def check_swept(store: Path) -> None:
    """No work folder of a killed build stays: with a lock none is left by now; one that was killed
    before it had its lock looks like one that is just being made, and goes when a minute old."""
    left = list((store / "tmp").iterdir())
    assert [path for path in left if (path / LOCK_FILE).exists()] == []
    for path in left:
        os.utime(path, (0, 0))
    assert trtforge("cache", "size", store=store).status == 0
    assert list((store / "tmp").iterdir()) == []


def test_a_build_killed_at_random_moments_completes_as_if_undisturbed(
    digits: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    undisturbed = trtforge(
        "build", digits / "int8.yaml", "--out", tmp_path / "calm", store=tmp_path / "calm-store"
    )
    span = time.monotonic() - started
    assert undisturbed.status == 0, undisturbed.stderr
    store, out = tmp_path / "store", tmp_path / "out"
    randomness = random.Random(20)
    killed = 0
    while killed < MOMENTS:
        process = start(digits, store, out)
        try:
            process.wait(randomness.uniform(0.02, 0.95) * span)
        except subprocess.TimeoutExpired:
            killed += 1
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        else:  # it got through before its moment came: from the start again
            shutil.rmtree(store)
        for path in out.glob("*") if out.exists() else ():
            if not path.name.startswith("."):
                open_bundle(path)  # whatever has a bundle's name is whole
    final = trtforge("build", digits / "int8.yaml", "--out", out, store=store)
    assert final.status == 0, final.stderr
    calm, stormy = Path(undisturbed.stdout.strip()), Path(final.stdout.strip())
    assert content_without_times(stormy) == content_without_times(calm)
    check_swept(store)
    assert [path.name for path in out.iterdir()] == [stormy.name]


def test_two_builds_at_once_do_the_work_once(digits: Path, tmp_path: Path) -> None:
    processes = [start(digits, tmp_path / "store", tmp_path / f"out{n}") for n in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    bundles = [next((tmp_path / f"out{n}").iterdir()) for n in range(2)]
    assert bundles[0].name == bundles[1].name
    first, second = (open_bundle(path).manifest for path in bundles)
    assert first.content() == second.content()
    again = trtforge("plan", digits / "int8.yaml", store=tmp_path / "store")
    assert " run " not in again.stdout
    assert again.stdout.count(" hit ") == 7


def test_builds_at_once_may_do_all_anew_into_one_folder(digits: Path, tmp_path: Path) -> None:
    """Each replaces results that the other reads."""
    store, out = tmp_path / "store", tmp_path / "out"
    processes = [start(digits, store, out, "--force", "--jobs", "2") for _ in range(3)]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    (bundle,) = out.iterdir()
    open_bundle(bundle)
    check_swept(store)
