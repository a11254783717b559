"""Technique `bias-correction`: what quantization shifts in the mean is taken off the biases."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trtforge.errors import DataError, Place
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import quantized_only
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.streaming import DataSource
from trtforge.precision.techniques.job import TechniqueJob
from trtforge.precision.techniques.layers import layers_of
from trtforge.precision.techniques.paired import Layer, paired, shift_name
from trtforge.precision.techniques.probing import samples_to_run, shapes_of_a_run

Doubles = npt.NDArray[np.float64]


class BiasCorrection:
    """Take the mean error of each output channel off the layer's bias.

    With weights W, inputs x, and what quantization makes of both, W' and x', the error of a layer
    has the mean E[W' x' - W x] per output channel; b - E[W' x' - W x] in place of b takes it away.
    M. Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction"
    (2019), section 4.2. Here x' are the inputs that the layer has in the quantized network, with
    the layers in front of it corrected, as in its appendix D, and all means come from one pass:
    both networks run side by side, and each layer's error is centred before it goes on.

    Without samples, the shifts that the calibration cache has from an earlier run are taken.

    A Conv or Gemm without bias gets one, a MatMul an Add, unless one follows already.
    """

    name = "bias-correction"

    def apply(self, job: TechniqueJob) -> None:
        """Change the biases of `job.model`.

        Raises:
            DataError: the cache lacks a tensor, its shifts fit no layer (TF0535), or the source
                cannot give a sample.
            GraphError: ONNX Runtime refuses the model.
        """
        if job.cache is None or job.precision.quantize not in ("int8", "fp8"):
            return
        layers = layers_of(job.model, job.precision)
        if job.source is None:
            shifts = _known_shifts(job.cache, layers)
        else:
            shifts = _measured_shifts(job, job.source, layers) if layers else {}
        if not shifts:
            return
        graph = editable_graph(job.model)
        names = Names(graph)
        for node in tuple(graph.nodes):
            shift = shifts.get(node.outputs[0].name) if node.outputs else None
            if shift is not None:
                _add_to_bias(graph, node, -shift, names)
        job.model = job.model.with_graph(graph)
        kept = {name: tuple(shift.tolist()) for name, shift in shifts.items()}
        job.cache = job.cache.model_copy(update={"bias_shifts": kept})
        origin = " as the cache says" if job.source is None else ""
        job.notes.append(f"{self.name}: {len(shifts)} biases{origin}")


def _known_shifts(cache: CalibrationCache, layers: Mapping[str, Layer]) -> dict[str, Doubles]:
    """What an earlier run measured, of the layers that are quantized."""
    found = {}
    for name, layer in layers.items():
        shift = cache.bias_shifts.get(name)
        if shift is None:
            continue
        if len(shift) != layer.channels:
            raise DataError(
                "TF0535",
                f"the calibration cache has {len(shift)} bias shifts for the layer of '{name}', "
                f"which has {layer.channels} channels",
                "the cache belongs to another graph; calibrate again",
                Place(node=name),
            )
        found[name] = np.asarray(shift, np.float64)
    return found


def _measured_shifts(
    job: TechniqueJob, source: DataSource, layers: Mapping[str, Layer]
) -> dict[str, Doubles]:
    quantized = quantized_only(job.model, job.cache, job.precision)[0]
    twin = paired(job.model, quantized, layers)
    stop = samples_to_run(job, source, shapes_of_a_run(job.model, source))
    return _shifts(job, twin, source, stop)


def _shifts(job: TechniqueJob, twin: Model, source: DataSource, stop: int) -> dict[str, Doubles]:
    """The mean shift of each layer over the first samples, each of which runs alone."""
    session = Session(twin)
    sums: dict[str, Doubles] = {}
    counts: dict[str, int] = {}
    size = source.static_batch or 1
    names = session.output_names
    for done, feeds in enumerate(source.batches(size, stop), 1):
        values = session.run({name: feeds[name] for name in session.input_names})
        for name in names:
            shift = values[name].astype(np.float64).ravel()
            if np.isfinite(shift).all():  # a layer without any positions has no mean
                sums[name] = sums.get(name, 0.0) + shift
                counts[name] = counts.get(name, 0) + 1
        if job.on_progress is not None:
            job.on_progress(done * size / stop, f"bias-correction: {done * size} of {stop} samples")
    found = {name: total / counts[name] for name, total in sums.items()}
    prefix, suffix = shift_name("|").split("|")
    return {name.removeprefix(prefix).removesuffix(suffix): one for name, one in found.items()}


def _add_to_bias(graph: gs.Graph, node: gs.Node, change: Doubles, names: Names) -> None:
    added = np.asarray(change, np.float32)
    if node.op == "MatMul":
        follower = _bias_add(node, len(change))
        if follower is None:
            _insert_add(graph, node, added, names)
            return
        add, index = follower
        add.inputs[index] = _sum(add.inputs[index], change, names)
    elif len(node.inputs) > 2 and node.inputs[2].name:
        bias = node.inputs[2]
        beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
        if isinstance(bias, gs.Constant) and beta != 0:
            node.inputs[2] = _sum(bias, change / beta, names)
        else:
            _insert_add(graph, node, added, names)
    else:
        node.attrs.pop("beta", None)
        bias = gs.Constant(names.fresh(f"{node.outputs[0].name}_bias"), added)
        if len(node.inputs) > 2:  # an input that is left out
            node.inputs[2] = bias
        else:
            node.inputs.append(bias)


def _bias_add(node: gs.Node, channels: int) -> tuple[gs.Node, int] | None:
    """The addition of a bias that is all that reads a product: the node, and which operand."""
    readers = node.outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return None
    add = readers[0]
    for index, operand in enumerate(add.inputs):
        if isinstance(operand, gs.Constant) and operand.shape and operand.shape[-1] == channels:
            return add, index
    return None


def _sum(constant: gs.Constant, change: Doubles, names: Names) -> gs.Constant:
    """The constant itself, changed, if nothing else reads it."""
    values = np.asarray(constant.values.astype(np.float64) + change, np.float32)
    if len(constant.outputs) == 1 and constant.shape == values.shape:
        constant.values = values
        return constant
    return gs.Constant(names.fresh(f"{constant.name}_corrected"), values)


def _insert_add(
    graph: gs.Graph, node: gs.Node, bias: npt.NDArray[np.float32], names: Names
) -> None:
    """Behind a node; the tensor that others read keeps its name."""
    result = node.outputs[0]
    shape = result.shape
    plain = gs.Variable(names.fresh(f"{result.name}_without_bias"), np.float32, shape)
    node.outputs[0] = plain
    if node.op in ("Conv", "ConvTranspose"):
        bias = bias.reshape(-1, *[1] * (len(node.inputs[1].shape) - 2))
    constant = gs.Constant(names.fresh(f"{result.name}_bias"), bias)
    name = names.fresh_node(f"{node.name or result.name}_bias")
    add = gs.Node("Add", name, {}, [plain, constant], [result])
    # The order of nodes stays: it decides which branch of a residual addition is quantized.
    graph.nodes.insert(graph.nodes.index(node) + 1, add)
