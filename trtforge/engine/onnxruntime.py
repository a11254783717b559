"""ONNX Runtime: runs the typed ONNX on any machine, and is the reference that others are held to.

It builds no engine. Polygraphy's runner executes; the session's options are ours: no graph
optimization unless asked for, since the optimizer changes what Q/DQ graphs compute.
"""

import importlib.metadata
import importlib.util
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtforge.disk import write_error
from trtforge.engine.backend import (
    Availability,
    BuildReport,
    BuildRequest,
    Feeds,
    OnProgress,
    Outputs,
)
from trtforge.engine.environment import peak_rss_bytes
from trtforge.errors import BuildError, ForgeError, Place
from trtforge.graph.memory import give_back

if TYPE_CHECKING:
    from trtforge.graph.model import Model

PROVIDERS = ("CPUExecutionProvider",)
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"/\S+\.(?:h|cc):\d+ .+?\) (?=[A-Z])")
"""A line of ONNX Runtime's own code, and the function around it."""
_NEWEST_OPSET = re.compile(r"for domain ai\.onnx is till opset (\d+)")


class OnnxRuntimeBackend:
    """Proves that ONNX Runtime takes the model; what ships is the ONNX itself."""

    name = "onnxruntime"

    def available(self) -> Availability:
        """Say what can be done here; nothing is imported."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(self.name, False, None, False, False, "pip install onnxruntime")
        return Availability(self.name, True, _version(), True, True, None)

    def build(
        self,
        request: BuildRequest,
        on_progress: OnProgress | None = None,
        cancelled: threading.Event | None = None,
    ) -> BuildReport:
        """Load the model into a session; `request.output` is not written, nothing is cancelled.

        Raises:
            BuildError: ONNX Runtime refuses the model.
            MissingError: the log cannot be written.
        """
        started = time.perf_counter()
        if on_progress is not None:
            on_progress(0.0, f"loading {request.onnx.name}")
        with OnnxRuntimeRunner(request.onnx) as runner:
            text = (
                f"onnxruntime {_version()}: {request.onnx.name} loads on {', '.join(PROVIDERS)}\n"
                f"inputs: {', '.join(runner.input_names)}\n"
                f"outputs: {', '.join(runner.output_names)}\n"
            )
        try:
            request.log.write_text(text, encoding="utf-8")
        except OSError as error:
            raise write_error(error, request.log) from error
        if on_progress is not None:
            on_progress(1.0, f"loading {request.onnx.name}")
        return BuildReport(
            backend=self.name,
            version=_version(),
            engine_bytes=0,
            engine_sha256="",
            profiles=request.profiles,
            compute_capabilities=(),
            parse_seconds=time.perf_counter() - started,
            build_seconds=0.0,
            peak_rss_bytes=peak_rss_bytes(),
            activation_memory_bytes=None,
            warnings=(),
            layers=(),
        )


class OnnxRuntimeRunner:
    """Runs an ONNX model on the CPU.

    Args:
        model: an ONNX file, a Model in memory, or what makes one when the context is entered, so
            that its weights are in memory no longer than that.
        name: what the runner is called in reports.
        optimize: let ONNX Runtime optimize the graph; off, it computes node by node as written.
        threads: threads per operator; None for one per core.
    """

    def __init__(
        self,
        model: "Path | Model | Callable[[], Model]",
        *,
        name: str = "onnxruntime",
        optimize: bool = False,
        threads: int | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._optimize = optimize
        self._threads = threads

    def __enter__(self) -> Self:
        """Load the model.

        Raises:
            BuildError: ONNX Runtime refuses it.
        """
        from polygraphy.backend.onnxrt import OnnxrtRunner

        self._runner = OnnxrtRunner(self._session, name=self.name)
        self._runner.activate()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.deactivate()
        if self._files is not None:
            self._files.release()
        del self._runner, self._weights, self._files
        give_back()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The model's inputs; only while the context is entered."""
        return tuple(value.name for value in self._runner.sess.get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """The model's outputs; only while the context is entered."""
        return tuple(value.name for value in self._runner.sess.get_outputs())

    def infer(self, feeds: Feeds) -> Outputs:
        """Compute all outputs of one batch.

        Raises:
            BuildError: a feed is missing or of the wrong type or shape, or an operator failed.
        """
        try:
            return dict(self._runner.infer(dict(feeds), check_inputs=False))
        except Exception as error:  # ONNX Runtime's exceptions have no base but Exception
            raise BuildError(
                "TF0616",
                f"onnxruntime cannot run {self._file}: {_plain(error)}",
                "feed each input under the name, in the type and shape that the model declares",
                self._place,
            ) from error

    @property
    def _file(self) -> str:
        return self._model.name if isinstance(self._model, Path) else "the model"

    @property
    def _place(self) -> Place | None:
        return Place(file=str(self._model)) if isinstance(self._model, Path) else None

    def _session(self) -> Any:
        from trtforge.graph.execute import load_session

        model = self._model() if callable(self._model) else self._model
        self._files = None if isinstance(model, Path) else model.files
        try:
            session, self._weights = load_session(
                model, optimize=self._optimize, threads=self._threads
            )
        except ForgeError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no base but Exception
            raise BuildError(
                "TF0615",
                f"onnxruntime {_version()} refuses {self._file}: {_plain(error)}",
                _remedy(error),
                self._place,
            ) from error
        return session


def _version() -> str:
    return importlib.metadata.version("onnxruntime")


def _plain(error: Exception) -> str:
    """ONNX Runtime's message without "[ONNXRuntimeError] : 1 : FAIL : " and its code's line."""
    return _SOURCE.sub(" ", _PREFIX.sub("", str(error))).strip() or type(error).__name__


def _remedy(error: Exception) -> str | None:
    newest = _NEWEST_OPSET.search(str(error))
    return None if newest is None else f"export the model with opset {newest[1]} or older"
