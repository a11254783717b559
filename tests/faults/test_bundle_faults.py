"""Writing bundles on full and read-only disks, and being killed while at it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from bundle_samples import FILES, draft, snapshot

from trtforge.bundle.read import open_bundle
from trtforge.bundle.write import write_bundle
from trtforge.errors import IntegrityError, MissingError

TESTS = Path(__file__).parent.parent

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bundle_samples import FILES, draft
from trtforge.bundle.write import write_bundle
from trtforge.errors import ForgeError
big = {f"reports/{number}.bin": bytes([number]) * int(sys.argv[3]) for number in range(20)}
print("ready", flush=True)
try:
    print(write_bundle(Path(sys.argv[2]), draft(), FILES | big))
except ForgeError as error:
    print(error.code, error.where.file)
    sys.exit(error.exit_status)
"""


def start(out, size=100_000, **options):
    command = [sys.executable, "-c", WRITER, str(TESTS), str(out), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_file_size_limit_leaves_nothing(tmp_path):
    """RLIMIT_FSIZE stands for a full disk: write() fails half-way, with EFBIG."""
    child = start(tmp_path, preexec_fn=limit_file_size)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 3
    assert output.splitlines()[1].startswith("TF0301")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB that really fills up; needs the right to mount."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("not run: there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"not run: cannot mount a tmpfs: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_really_full_disk_leaves_what_was_there(small_disk):
    path = write_bundle(small_disk, draft(), FILES)
    before = snapshot(small_disk)
    big = FILES | {"reports/parity.json": b"x" * 2_000_000}
    with pytest.raises(MissingError) as caught:
        write_bundle(small_disk, draft(), big)
    assert (caught.value.code, caught.value.exit_status) == ("TF0301", 3)
    assert str(small_disk) in caught.value.where.file
    assert snapshot(small_disk) == before
    open_bundle(path)


@pytest.fixture
def locked_folder():
    """A folder that everyone may read and nobody may write; not below pytest's private one."""
    top = Path(tempfile.mkdtemp())
    out = top / "locked"
    out.mkdir()
    top.chmod(0o755)
    out.chmod(0o555)
    yield out
    out.chmod(0o755)
    shutil.rmtree(top)


def test_a_read_only_folder_is_named(locked_folder):
    """Root may write anywhere, so the writing is done by a child that gives that right up."""
    out = locked_folder
    child = os.fork()
    if child == 0:
        status = 99
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            write_bundle(out, draft(), FILES)
        except MissingError as error:
            status = 3 if error.code == "TF0302" and str(out) in error.where.file else 98
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert list(out.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(MissingError, match="cannot write the bundle") as caught:
        write_bundle(tmp_path / "out", draft(), FILES)
    assert caught.value.code == "TF0302"


def test_killed_writers_leave_no_half_bundle_and_the_next_one_cleans_up(tmp_path):
    undisturbed = start(tmp_path / "reference")
    assert undisturbed.stdout.readline() == "ready\n"
    ready = time.monotonic()
    name = Path(undisturbed.communicate(timeout=60)[0].strip()).name
    took_s = time.monotonic() - ready
    out = tmp_path / "out"
    killed = 0
    for attempt in range(12):
        child = start(out)
        child.stdout.readline()
        time.sleep(took_s * attempt / 12)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        killed += child.returncode == -signal.SIGKILL
        if (out / name).exists():
            open_bundle(out / name)
    assert killed > 0
    final = start(out)
    final.communicate(timeout=60)
    assert final.returncode == 0
    assert [entry.name for entry in out.iterdir()] == [name]
    assert open_bundle(out / name).manifest.content() == (
        open_bundle(tmp_path / "reference" / name).manifest.content()
    )


def test_a_file_changed_after_writing_is_noticed_at_any_size(tmp_path):
    """Larger than one read chunk, the change in the last byte."""
    large = b"\0" * (9 * 1024 * 1024)
    path = write_bundle(tmp_path, draft(), FILES | {"reports/large.bin": large})
    with (path / "reports" / "large.bin").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    with pytest.raises(IntegrityError, match=r"reports/large\.bin"):
        open_bundle(path)
