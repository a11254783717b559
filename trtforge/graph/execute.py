"""Running a model in ONNX Runtime on the CPU: the reference everywhere in trtforge."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, ValueInfoProto

from trtforge.errors import GraphError, Place
from trtforge.graph.loading import parse_model
from trtforge.graph.model import Model
from trtforge.graph.names import did_you_mean
from trtforge.graph.skeleton import EXTERNAL_THRESHOLD_BYTES, Moved, without_weights
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

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

_PASS_BY_REFERENCE_BYTES = 64 << 20
"""From this size on, weights are handed over as arrays in place of a serialized copy."""

_STAND_IN = Path(__file__)
"""ONNX Runtime insists that the file of external data exists, also where it gets the values
themselves and never opens it: this one does."""

_REMEDIES = {
    "two nodes with same node name": "give each node another name, or none",
    "is not a registered function": "an operator that ONNX does not define runs only in an engine, "
    "with its plugin: export the model without it",
    "out of data bounds": "the data holds an index beyond what the model looks up in: check it",
    "Got invalid dimensions": "give shapes or data that the model's inputs take",
}
"""What ONNX Runtime says: what can be done about it."""

_NOWHERE = 1 << 40
"""An offset behind the end of any such file: if it were opened, that would fail."""

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
        self._place = Place(str(model)) if isinstance(model, Path) else None
        try:
            self._session, self._weights = load_session(
                model, outputs=tuple(outputs or ()), optimize=optimize, threads=threads
            )
        except GraphError:
            raise
        except Exception as error:  # ONNX Runtime has a dozen exception types without a base
            raise self._refused("ONNX Runtime cannot load the model", error) from error
        self.input_names = tuple(str(node.name) for node in self._session.get_inputs())
        self.output_names = tuple(str(node.name) for node in self._session.get_outputs())

    @property
    def input_dims(self) -> dict[str, tuple[int | str | None, ...]]:
        """Dimensions by input name: sizes, symbols, or None."""
        return {str(node.name): tuple(node.shape) for node in self._session.get_inputs()}

    @property
    def output_forms(self) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
        """ONNX Runtime's type and dimensions by output name: ("tensor(float)", ("N", 10))."""
        outputs = self._session.get_outputs()
        return {str(node.name): (str(node.type), tuple(node.shape or ())) for node in outputs}

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
        if not wanted:
            return {}  # ONNX Runtime would compute all
        options = ort.RunOptions()
        options.log_severity_level = _FATAL
        try:
            values = self._session.run(wanted, feeds, options)
        except Exception as error:  # see __init__
            raise self._refused("ONNX Runtime cannot run the model", error) from error
        return dict(zip(wanted, values, strict=True))

    @property
    def unchecked(self) -> Callable[[None, Feeds], list[object]]:
        """ONNX Runtime's own call, which computes all outputs: for measuring time."""
        run: Callable[[None, Feeds], list[object]] = self._session.run
        return run

    def _check_names(self, feeds: Feeds, wanted: Iterable[str]) -> None:
        for name in self.input_names:
            if name not in feeds:
                raise GraphError(
                    "TF0409",
                    f"no value is given for input '{name}'",
                    f"give arrays for {', '.join(self.input_names)}",
                    self._place,
                )
        for name, known in (
            *((name, self.input_names) for name in feeds),
            *((name, self.output_names) for name in wanted),
        ):
            if name not in known:
                hint = did_you_mean(name, known)
                raise GraphError("TF0409", f"the model has no '{name}'", hint, self._place)

    def _refused(self, what: str, error: Exception) -> GraphError:
        text = str(error).strip() or repr(error)
        first = text.splitlines()[0]
        remedies = (remedy for said, remedy in _REMEDIES.items() if said in text)
        return GraphError(
            "TF0408",
            f"{what}: {first[:400]}",
            next(remedies, None),
            self._place,
            details=None if first[:400] == text else text,
        )


def load_session(
    model: Model | Path,
    *,
    outputs: tuple[str, ...] = (),
    optimize: bool = False,
    threads: int | None = None,
) -> tuple[ort.InferenceSession, tuple[Any, ...]]:
    """Make ONNX Runtime's own session of a model, with at most one copy of its weights.

    Returns:
        The session, and values that it uses and that must live as long as it does.

    Raises:
        GraphError: TF0409, there is no such tensor; TF0404, the weights are gone.
        Exception: ONNX Runtime refuses the model, in one of its own types.
    """
    options = _options(optimize, threads)
    if isinstance(model, Path) and not outputs:
        return _session(str(model), options), ()
    if isinstance(model, Path):
        proto, files = parse_model(model)
        model = Model(proto, files=files)
    initializers = model.proto.graph.initializer
    sizes = sum(storage_bytes(tensor) for tensor in initializers)
    by_reference = sizes > _PASS_BY_REFERENCE_BYTES or any(map(is_external, initializers))
    if not by_reference and not outputs:
        return _session(model.proto.SerializeToString(), options), ()
    copy, moved = without_weights(
        model.proto, model.files, lambda t: by_reference and _passes_by_reference(t)
    )
    weights = _hand_over(moved, model, options, optimize=optimize)
    _expose(copy, outputs)
    session = _session(copy.SerializeToString(), options)
    model.files.release()
    return session, weights


def _session(source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _hand_over(
    moved: list[Moved], model: Model, options: ort.SessionOptions, *, optimize: bool
) -> tuple[Any, ...]:
    """Give a session the values of weights that its model has lost.

    As written, the model needs no more than the values themselves. The optimizer computes with
    weights, so it gets them as the model's own, which copies them.
    """
    names, weights = [], []
    for header, source in moved:
        set_external(header, Extent(_STAND_IN.name, _NOWHERE, storage_bytes(source)))
        # Native code reads from addresses that are multiples of the element's size.
        array = np.require(tensor_array(source, model.files), requirements=("A", "C"))
        weights.append(ort.OrtValue.ortvalue_from_numpy(array))
        names.append(source.name)
    if optimize and names:
        options.add_external_initializers(names, weights)
    elif names:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(_STAND_IN.parent))
        for name, value in zip(names, weights, strict=True):
            options.add_initializer(name, value)
    return tuple(weights)


def _options(optimize: bool, threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if not optimize:
        # Packed weights are a second copy of them; packing anew costs a few percent of a run.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Planned memory is kept from run to run, for the largest shape, beside the arena's.
        options.enable_mem_pattern = False
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
