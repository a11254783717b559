"""Weights put back into an engine that was built without them; inside the worker process only."""

from pathlib import Path
from typing import Any

from trtforge.engine.native_log import LogBook
from trtforge.errors import BuildError


def refit(trt: Any, engine: Any, logger: Any, model: Path, book: LogBook) -> None:
    """Give an ICudaEngine the weights of the ONNX model that it was built from.

    Args:
        trt: the module of the flavour.
        engine: built with `strip_weights` or `refit`.
        logger: an ILogger of the module, writing to `book`.
        model: the typed ONNX; external data lies beside it.
        book: what the library says.

    Raises:
        BuildError: TF0621, the engine does not take them; carries what the library logged.
    """
    known = len(book.errors)
    refitter = trt.Refitter(engine, logger)
    reader = trt.OnnxParserRefitter(refitter, logger)
    if reader.refit_from_file(str(model)) and refitter.refit_cuda_engine():
        return
    said = book.errors[known:] or ["no reason given"]
    raise BuildError(
        "TF0621",
        f"the engine does not take the weights of {model.name}: {said[0]}",
        hint="take the ONNX file that the engine was built from, and one that is not changed",
        details="\n".join(said[1:]) or None,
    )
