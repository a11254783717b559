"""A stand-in for the worker's program: the real worker, with one thing in it that goes wrong.

`python faulty_worker.py FAULT JOB.json`. The faults of the native library, which cannot be made to
fail so at will, are played at the moment when it has handed over half of the engine.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trtforge.engine import engine_file, tensorrt, worker
from trtforge.engine.native_log import LogBook

MIB = 1 << 20


def at_half(fault: Any) -> None:
    """Have `fault` happen when half of the engine is on the disk."""
    write = engine_file.EngineFile.write

    def half(self: engine_file.EngineFile, chunk: Any) -> int:
        write(self, memoryview(chunk)[: len(chunk) // 2])
        fault()
        return write(self, memoryview(chunk)[len(chunk) // 2 :])

    engine_file.EngineFile.write = half  # type: ignore[method-assign]


def after_build(fault: Any) -> None:
    """Have `fault(path of the engine)` happen to an engine that is written and hashed."""
    build = tensorrt.build_engine

    def spoiled(request: Any, reporting: Any) -> Any:
        report = build(request, reporting)
        fault(request.output)
        return report

    tensorrt.build_engine = spoiled


def eat() -> None:
    """Take 600 MiB of memory, and keep it."""
    kept = [bytearray(b"x" * MIB) for _ in range(600)]
    time.sleep(600)
    del kept


def full_disk() -> None:
    """A limit on the size of files stands for the full disk: the real write fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def lose_log() -> None:
    log = Path(json.loads(Path(sys.argv[-1]).read_text())["request"]["log"])
    log.unlink()
    log.mkdir()
    signal.raise_signal(signal.SIGSEGV)  # to this thread: it does not go on


def spoil_magic(engine: Path) -> None:
    engine.write_bytes(b"\0\0\0\0" + engine.read_bytes()[4:])


def truncate(engine: Path) -> None:
    os.truncate(engine, engine.stat().st_size // 2)


def flip_a_bit(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


def parse_garbage() -> None:
    """What is no ONNX at all, to which TensorRT-RTX's real parser says True."""
    parse = tensorrt.network.parse

    def garbage(trt: Any, network: Any, logger: Any, model: Path) -> Any:
        folder = Path(json.loads(Path(sys.argv[-1]).read_text())["request"]["log"]).parent
        bad = folder / "garbage" / model.name  # not over the model itself, which others build too
        bad.parent.mkdir()
        bad.write_bytes(bytes(4096))
        return parse(trt, network, logger, bad)

    tensorrt.network.parse = garbage


def log_an_error() -> None:
    """The library logs an ERROR line, and builds a sound engine all the same."""
    make = tensorrt.make_logger

    def logger(trt: Any, book: LogBook) -> Any:
        at_half(lambda: book.record("ERROR", "Error Code 1: something is not as it should be"))
        return make(trt, book)

    tensorrt.make_logger = logger


def lose_library() -> None:
    def import_module(name: str) -> Any:
        raise ImportError("libtensorrt_rtx.so.1: cannot open shared object file")

    tensorrt.importlib = SimpleNamespace(import_module=import_module)  # type: ignore[assignment]


def be_old() -> None:
    tensorrt.importlib = SimpleNamespace(  # type: ignore[assignment]
        import_module=lambda name: SimpleNamespace(__name__=name, __version__="1.2.0.54")
    )


FAULTS = {
    "segfault": lambda: at_half(lambda: ctypes.string_at(0)),
    "abort": lambda: at_half(os.abort),
    "kill": lambda: at_half(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "hang": lambda: at_half(lambda: time.sleep(600)),
    "memory": lambda: at_half(eat),
    "disk": full_disk,
    "log": lambda: at_half(lose_log),
    "magic": lambda: after_build(spoil_magic),
    "flipped": lambda: after_build(flip_a_bit),
    "gone": lambda: after_build(Path.unlink),
    "truncated": lambda: after_build(truncate),
    "garbage": parse_garbage,
    "error-line": log_an_error,
    "library": lose_library,
    "version": be_old,
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    status = worker.main()
    sys.stderr.flush()
    os._exit(status)
