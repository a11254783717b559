"""Running a model in ONNX Runtime on the CPU: the reference everywhere in trtforge."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, ValueInfoProto

from trtforge.errors import GraphError, Place
from trtforge.graph.loading import parse_model
from trtforge.graph.model import Model
from trtforge.graph.names import did_you_mean
from trtforge.graph.skeleton import EXTERNAL_THRESHOLD_BYTES, without_weights
from trtforge.graph.weights import (
    Extent,
    is_external,
    numpy_dtype,
    set_external,
    storage_bytes,
    tensor_array,
)

Feeds = dict[str, np.ndarray]

_FATAL = 4
"""Failures come as exceptions; ONNX Runtime would print them from native code as well.

Source: onnxruntime OrtLoggingLevel (0 verbose .. 4 fatal).
"""

_PASS_BY_REFERENCE_BYTES = 64 << 20
"""From this size on, weights are handed over as arrays in place of a serialized copy."""

ort.set_default_logger_severity(_FATAL)


class Session:
    """A model, loaded.

    Args:
        model: a model in memory, or an ONNX file (loaded without the checks of `Model.load`).
        optimize: let ONNX Runtime fuse and fold; off, every node computes what it says.
        outputs: tensors to expose in addition to the model's outputs.
        threads: threads within one operator; None leaves it to ONNX Runtime.

    Raises:
        GraphError: TF0408, ONNX Runtime refuses the model; TF0409, there is no such tensor.
    """

    def __init__(
        self,
        model: Model | Path,
        *,
        optimize: bool = False,
        outputs: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> None:
        options = _options(optimize, threads)
        self._place = Place(str(model)) if isinstance(model, Path) else None
        self._weights: list[Any] = []
        source = self._source(model, tuple(outputs or ()), options)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a dozen exception types without a base
            raise self._refused("ONNX Runtime cannot load the model", error) from error
        self.input_names = tuple(str(node.name) for node in self._session.get_inputs())
        self.output_names = tuple(str(node.name) for node in self._session.get_outputs())

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Compute.

        Args:
            feeds: one array per input.
            outputs: which outputs to compute; None means all.

        Returns:
            Arrays by output name, in the order asked for.

        Raises:
            GraphError: TF0408, ONNX Runtime fails; TF0409, an input is missing or unknown.
        """
        wanted = list(self.output_names if outputs is None else outputs)
        self._check_names(feeds, wanted)
        options = ort.RunOptions()
        options.log_severity_level = _FATAL
        try:
            values = self._session.run(wanted, feeds, options)
        except Exception as error:  # see __init__
            raise self._refused("ONNX Runtime cannot run the model", error) from error
        return dict(zip(wanted, values, strict=True))

    def _check_names(self, feeds: Feeds, wanted: Iterable[str]) -> None:
        for name in self.input_names:
            if name not in feeds:
                raise GraphError(
                    "TF0409", f"no value is given for input '{name}'", None, self._place
                )
        for name, known in (
            *((name, self.input_names) for name in feeds),
            *((name, self.output_names) for name in wanted),
        ):
            if name not in known:
                hint = did_you_mean(name, known)
                raise GraphError("TF0409", f"the model has no '{name}'", hint, self._place)

    def _source(
        self, model: Model | Path, outputs: tuple[str, ...], options: ort.SessionOptions
    ) -> str | bytes:
        if isinstance(model, Path):
            if not outputs:
                return str(model)
            model = Model(parse_model(model), model.parent)
        initializers = model.proto.graph.initializer
        sizes = sum(storage_bytes(tensor) for tensor in initializers)
        by_reference = sizes > _PASS_BY_REFERENCE_BYTES or any(map(is_external, initializers))
        if not by_reference and not outputs:
            return bytes(model.proto.SerializeToString())
        copy, moved = without_weights(
            model.proto, model.files, lambda t: by_reference and _passes_by_reference(t)
        )
        names = []
        for header, source in moved:
            # The location is never opened: the value is given by name.
            set_external(header, Extent("by-reference", 0, storage_bytes(source)))
            array = tensor_array(source, model.files)
            self._weights.append(ort.OrtValue.ortvalue_from_numpy(array))
            names.append(source.name)
        if names:
            options.add_external_initializers(names, self._weights)
        _expose(copy, outputs)
        return bytes(copy.SerializeToString())

    def _refused(self, what: str, error: Exception) -> GraphError:
        text = str(error).strip() or repr(error)
        return GraphError(
            "TF0408", f"{what}: {text.splitlines()[0][:400]}", None, self._place, details=text
        )


def _options(optimize: bool, threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _passes_by_reference(tensor: TensorProto) -> bool:
    if storage_bytes(tensor) < EXTERNAL_THRESHOLD_BYTES:
        return False
    return numpy_dtype(tensor.data_type).kind in "biuf"  # what OrtValue takes from numpy


def _expose(proto: ModelProto, outputs: tuple[str, ...]) -> None:
    """Add tensors to the outputs of a model; ONNX Runtime infers their types."""
    present = {info.name for info in proto.graph.output}
    known = {name for node in proto.graph.node for name in node.output if name}
    for name in outputs:
        if name in present:
            continue
        if name not in known:
            hint = did_you_mean(name, known)
            raise GraphError("TF0409", f"the model computes no tensor '{name}'", hint)
        proto.graph.output.append(ValueInfoProto(name=name))
        present.add(name)
