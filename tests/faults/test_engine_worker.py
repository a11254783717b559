"""A worker that crashes, hangs, babbles or loses its parent: one clear error, no orphan."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_models import CONV_PROFILE, conv_net, light_densenet, matmul, save

from trtforge.engine import supervisor
from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.engine_file import EngineFile, partial_path
from trtforge.engine.supervisor import Job, run_worker
from trtforge.errors import BuildError, MissingError

REPOSITORY = Path(__file__).parents[2]
SAY = "import os, sys, time, signal, json\ndef say(**m): print(json.dumps(m), flush=True)\n"


def job(folder: Path, program: str, timeout_s: float = 20.0) -> Job:
    """A job for a worker that is the Python program given."""
    script = folder / "program.py"
    script.write_text(SAY + program)
    return Job(
        "building x.onnx", {"command": "build"}, folder / "build.log", timeout_s,
        (sys.executable, str(script)),
    )  # fmt: skip


def failure(folder: Path, program: str, timeout_s: float = 20.0) -> BuildError:
    with pytest.raises(BuildError) as caught:
        run_worker(job(folder, program, timeout_s))
    assert (folder / "build.job.json").exists()
    assert str(folder / "build.job.json") in caught.value.hint
    return caught.value


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def assert_gone(process: int, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while is_alive(process):
        assert time.monotonic() < deadline, f"process {process} is still there"
        time.sleep(0.02)


def wait_for(path: Path, within_s: float = 30.0) -> str:
    deadline = time.monotonic() + within_s
    while not (text := path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
    return text


def test_an_answer_that_takes_long_to_read_is_no_death(tmp_path, monkeypatch):
    read = supervisor.messages.decode

    def slowly(line: bytes):
        time.sleep(4 * supervisor._TICK_S)  # the worker is gone by then
        return read(line)

    monkeypatch.setattr(supervisor.messages, "decode", slowly)
    assert run_worker(job(tmp_path, "say(event='result', value=[0] * 100_000)")) == [0] * 100_000


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_crash_is_named_and_the_log_shown(tmp_path, name):
    error = failure(
        tmp_path,
        f"sys.stderr.write('last words of the library\\n'); sys.stderr.flush()\n"
        f"os.kill(os.getpid(), signal.{name})",
    )
    assert error.code == "TF0609"
    assert error.exit_status == 4
    assert error.message == f"building x.onnx failed: it crashed ({name})"
    assert "last words of the library" in error.details


def test_a_real_segmentation_fault_does_not_reach_the_parent(tmp_path):
    error = failure(tmp_path, "import ctypes; ctypes.string_at(0)")
    assert "SIGSEGV" in error.message
    assert "Segmentation fault" in error.details


def test_a_kill_is_laid_to_memory(tmp_path):
    error = failure(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert error.code == "TF0610"
    assert "SIGKILL" in error.message
    assert "memory" in error.message


@pytest.mark.parametrize("status", [0, 3])
def test_an_end_without_result_is_a_failure(tmp_path, status):
    error = failure(tmp_path, f"sys.exit({status})")
    assert f"ended with status {status} and no result" in error.message


def test_a_hang_is_stopped(tmp_path):
    started = time.monotonic()
    error = failure(tmp_path, "time.sleep(600)", timeout_s=0.5)
    assert error.code == "TF0612"
    assert "longer than 0.5 s" in error.message
    assert time.monotonic() - started < 4


def test_a_hang_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "CANCEL_GRACE_S", 0.3)
    pid = tmp_path / "pid"
    error = failure(
        tmp_path,
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "while True: time.sleep(60)",
        timeout_s=1.5,
    )
    assert error.code == "TF0612"
    assert_gone(int(pid.read_text()))


def test_babble_on_stdout_is_no_message(tmp_path):
    program = (
        "print('Internal Error: Myelin'); print('{broken'); print('[1]'); print('{}')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n'); say(event='result', value=7)"
    )
    assert run_worker(job(tmp_path, program)) == 7
    assert not (tmp_path / "build.job.json").exists()


def test_a_process_that_the_worker_left_behind_neither_hangs_nor_survives(tmp_path):
    pid = tmp_path / "pid"
    error = failure(
        tmp_path,
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "os.kill(os.getpid(), signal.SIGSEGV)",
    )
    assert "SIGSEGV" in error.message
    assert_gone(int(pid.read_text()))


def test_progress_is_passed_on_before_the_result(tmp_path):
    seen = []
    program = "say(event='progress', fraction=0.5, phase='half'); say(event='result', value={})"
    run_worker(job(tmp_path, program), lambda share, phase: seen.append((share, phase)))
    assert seen == [(0.5, "half")]


def test_an_error_raised_by_the_listener_ends_the_worker(tmp_path):
    pid = tmp_path / "pid"
    program = (
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "say(event='progress', fraction=0.5, phase='half'); time.sleep(600)"
    )

    def interrupt(share: float, phase: str) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_worker(job(tmp_path, program), interrupt)
    assert time.monotonic() - started < supervisor.CANCEL_GRACE_S
    assert_gone(int(pid.read_text()))


def test_a_program_that_cannot_be_started_or_logged_is_missing(tmp_path):
    lost = Job("building", {}, tmp_path / "no" / "build.log", 5)
    with pytest.raises(MissingError) as caught:
        run_worker(lost)
    assert (caught.value.code, caught.value.exit_status) == ("TF0302", 3)
    with pytest.raises(MissingError, match="cannot start a worker"):
        run_worker(Job("building", {}, tmp_path / "build.log", 5, (str(tmp_path / "none"),)))


PARENT = """
import sys
from pathlib import Path
sys.path[:0] = [{repository!r}, {tests!r}]
from engine_models import light_densenet
from trtforge.engine import supervisor
from trtforge.engine.backend import BuildRequest
from trtforge.engine.builder import build_job
folder = Path({folder!r})
request = BuildRequest(light_densenet(), folder / "m.engine", folder / "build.log", "tensorrt_rtx")
with supervisor.Worker(build_job(request)) as worker:
    def on_progress(share, phase):
        if share > 0.1:
            (folder / "pid").write_text(str(worker.process_id))
    worker.answer(on_progress)
(folder / "done").write_text("yes")
"""


def start_parent(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A process that builds a large network; returns it and its builder, both at work."""
    program = PARENT.format(
        repository=str(REPOSITORY), tests=str(REPOSITORY / "tests"), folder=str(folder)
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE
    )
    builder = int(wait_for(folder / "pid"))
    assert is_alive(builder)
    return parent, builder


def assert_nothing_left(folder: Path) -> None:
    assert not (folder / "done").exists(), "the build was over too soon for this test"
    assert not (folder / "m.engine").exists()


def test_kill_9_of_the_parent_leaves_no_builder_behind(tmp_path):
    parent, builder = start_parent(tmp_path)
    parent.kill()
    parent.wait()
    assert_gone(builder, within_s=1.0)
    assert_nothing_left(tmp_path)


def test_ctrl_c_of_the_parent_ends_the_builder_and_the_parent(tmp_path):
    parent, builder = start_parent(tmp_path)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(10) != 0
    assert b"KeyboardInterrupt" in parent.stderr.read()
    assert_gone(builder, within_s=1.0)
    assert_nothing_left(tmp_path)


def test_without_the_kernels_help_the_worker_notices_its_parents_end(tmp_path, monkeypatch):
    """Where there is no PR_SET_PDEATHSIG the closed stdin ends the worker."""
    script = tmp_path / "worker.py"
    pid = tmp_path / "pid"
    script.write_text(
        "import os, sys, time\n"
        "from trtforge.engine import worker\n"
        "worker._die_with = lambda parent: None\n"
        "worker._ORPHAN_GRACE_S = 0.1\n"
        f"def work(self): open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)\n"
        "worker._Work._command = work\n"
        "worker.main()\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\n"
        "from trtforge.engine.supervisor import Job, run_worker\n"
        f"run_worker(Job('x', {{}}, Path({str(tmp_path)!r}) / 'log', 60,"
        f" (sys.executable, {str(script)!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    worker = int(wait_for(pid))
    parent.kill()
    parent.wait()
    assert_gone(worker)


def request_for(path: Path, folder: Path, **options: object) -> BuildRequest:
    return BuildRequest(path, folder / "m.engine", folder / "build.log", "tensorrt_rtx", **options)


def test_a_build_that_takes_too_long_is_stopped_and_leaves_nothing(tmp_path):
    with pytest.raises(BuildError) as caught:
        get_backend("tensorrt_rtx").build(request_for(light_densenet(), tmp_path, timeout_s=1.0))
    assert caught.value.code == "TF0612"
    assert {path.name for path in tmp_path.iterdir()} == {"build.log", "build.job.json"}


def test_what_a_killed_worker_wrote_of_the_engine_is_removed(tmp_path):
    program = (
        f"open({str(tmp_path)!r} + f'/.m.engine.{{os.getpid()}}.partial', 'w').write('half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / ".m.engine.1.partial").write_text("of another build")
    killed = dataclasses.replace(job(tmp_path, program), output=tmp_path / "m.engine")
    with pytest.raises(BuildError, match="SIGKILL"):
        run_worker(killed)
    assert [path.name for path in tmp_path.glob(".m.engine.*")] == [".m.engine.1.partial"]


def test_a_full_disk_is_exit_3_and_leaves_no_engine(tmp_path):
    """A limit on file size stands for the full disk: the real builder, a real failing write."""
    path = save(conv_net(), tmp_path)
    request = request_for(path, tmp_path, profiles=(CONV_PROFILE,))
    whole = get_backend("tensorrt_rtx").build(request).engine_bytes
    request.output.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 1, hard))
    try:
        with pytest.raises(MissingError) as caught:
            get_backend("tensorrt_rtx").build(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.code, caught.value.exit_status) == ("TF0301", 3)
    assert str(request.output) in caught.value.message
    assert not list(tmp_path.glob("*engine*")), "nothing half-written"


def test_no_space_left_is_told_from_not_writable(tmp_path):
    target = tmp_path / "m.engine"
    partial_path(target, os.getpid()).symlink_to("/dev/full")
    with EngineFile(target) as file:
        assert file.write(b"x" * 100) == 0
        with pytest.raises(MissingError, match="no space left") as caught:
            file.commit()
    assert caught.value.code == "TF0301"
    assert not target.exists()
    with pytest.raises(MissingError, match="cannot write") as caught:
        EngineFile(tmp_path / "none" / "m.engine").__enter__()
    assert caught.value.code == "TF0302"


def test_a_failed_build_leaves_the_engine_that_was_there(tmp_path):
    (tmp_path / "m.engine").write_bytes(b"the old one")
    with pytest.raises(BuildError):
        get_backend("tensorrt_rtx").build(request_for(save(conv_net(), tmp_path), tmp_path))
    assert (tmp_path / "m.engine").read_bytes() == b"the old one"


def test_builds_at_once_do_not_mix(tmp_path):
    path = save(matmul(), tmp_path)
    digests = []

    def one(name: str) -> None:
        (tmp_path / name).mkdir()
        request = request_for(path, tmp_path / name)
        digests.append(get_backend("tensorrt_rtx").build(request).engine_sha256)

    threads = [threading.Thread(target=one, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3
    assert len(set(digests)) == 1
