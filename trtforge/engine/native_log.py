"""The builder's log: every line kept, errors that count told from noise, facts read from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}
_ACTIVATION = re.compile(r"Total Activation Memory: (\d+)")


@dataclass(frozen=True)
class Noise:
    """An ERROR line that does not mean failure, and why."""

    pattern: re.Pattern[str]
    flavours: tuple[str, ...]
    reason: str


NOISE: tuple[Noise, ...] = (
    Noise(
        re.compile(r"catchCudaError.*cudaError 35\b", re.DOTALL),
        ("tensorrt_rtx",),
        "without an NVIDIA driver every message of the API is followed by a vain look at the GPU; "
        "TensorRT-RTX builds on the CPU all the same (seen with 1.7.1)",
    ),
    Noise(
        re.compile(r"Error Code:? 9: Skipping tactic 0x[0-9a-f]+ due to exception"),
        ("tensorrt",),
        "auto-tuning tried a kernel that cannot run this layer and goes on with the others; "
        "reported as ERROR by builds that succeed (microsoft/onnxruntime#22164)",
    ),
)


@dataclass
class LogBook:
    """What the builder said.

    Attributes:
        flavour: whose log it is; noise is known per flavour.
        sink: takes each line, already formatted.
        scrub: a text to be cut from every line: the model's folder, so that logs are comparable.
        verbose: whether VERBOSE lines are passed to the sink too.
        errors: ERROR lines that count, in order.
        warnings: WARNING lines, each once, in order.
        activation_bytes: the largest activation memory stated, None when none was.
    """

    flavour: str
    sink: Callable[[str], None]
    scrub: str = ""
    verbose: bool = False
    errors: list[str] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    activation_bytes: int | None = None

    def record(self, severity: str, message: str) -> None:
        """Take one message; `severity` is the name of an ILogger.Severity."""
        text = message.replace(self.scrub, "") if self.scrub else message
        if severity != "VERBOSE" or self.verbose:
            self.sink(f"[{_LETTERS.get(severity, '?')}] {text}")
        if severity in ("ERROR", "INTERNAL_ERROR"):
            if not self.is_noise(text):
                self.errors.append(text)
        elif severity == "WARNING":
            self.warnings.setdefault(text)
        elif found := _ACTIVATION.search(text):
            self.activation_bytes = max(self.activation_bytes or 0, int(found[1]))

    def is_noise(self, message: str) -> bool:
        """Whether an ERROR line is known not to mean failure."""
        return any(
            self.flavour in noise.flavours and noise.pattern.search(message) for noise in NOISE
        )


def make_logger(trt: Any, book: LogBook) -> Any:
    """Return an ILogger of the module `trt` that writes to `book`.

    TensorRT keeps the first logger that a process gives it, so there is one per worker process.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            book.record(severity.name, msg)

    return Logger()
