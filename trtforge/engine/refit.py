"""Weights put back into an engine that was built without them; inside the worker process only."""

from pathlib import Path
from typing import Any

from trtforge.engine.native_log import LogBook
from trtforge.errors import BuildError


def stripped_bytes(trt: Any, engine: Any) -> int | None:
    """Bytes of weights that were stripped from an ICudaEngine when it was built.

    Returns:
        None of an engine that has all its weights, and where the library does not tell
        (TensorRT 10.13).
    """
    if not hasattr(engine, "get_engine_stat"):
        return None
    size = int(engine.get_engine_stat(trt.EngineStat.STRIPPED_WEIGHTS_SIZE))
    return size if size >= 0 else None  # -1 of an engine that was built with its weights


def require_weights(trt: Any, engine: Any, name: str) -> None:
    """Refuse to run an engine whose weights were stripped and not put back.

    Raises:
        BuildError: TF0629.
    """
    size = stripped_bytes(trt, engine)
    if size is not None:
        raise BuildError(
            "TF0629",
            f"'{name}' was built without its weights ({size / 2**20:.3g} MiB of them)",
            hint="name the ONNX file that it was built from with --weights",
        )


def refit(trt: Any, engine: Any, logger: Any, model: Path, book: LogBook) -> None:
    """Give an ICudaEngine the weights of the ONNX model that it was built from.

    Args:
        trt: the module of the flavour.
        engine: built with `strip_weights` or `refit`.
        logger: an ILogger of the module, writing to `book`.
        model: the typed ONNX; external data lies beside it.
        book: what the library says.

    Raises:
        BuildError: TF0628, the engine does not take them; carries what the library logged.
    """
    if not engine.refittable:
        raise BuildError(
            "TF0628",
            "the engine takes no other weights: it was built with its own",
            hint="leave --weights out",
        )
    known = len(book.errors)
    refitter = trt.Refitter(engine, logger)
    reader = trt.OnnxParserRefitter(refitter, logger)
    if reader.refit_from_file(str(model)) and refitter.refit_cuda_engine():
        return
    said = book.errors[known:] or ["no reason given"]
    raise BuildError(
        "TF0628",
        f"the engine does not take the weights of {model.name}: {said[0]}",
        hint="take the ONNX file that the engine was built from, and one that is not changed",
        details="\n".join(said[1:]) or None,
    )
