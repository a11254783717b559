"""The typed graph as an FP32 graph that rounds after every operator: exact FP16 and BF16 on a CPU.

ONNX Runtime's CPU kernels compute FP16 graphs in FP32 and drop the casts between operators, which
hides overflow and accumulated rounding. Here each FP16 or BF16 operator becomes its FP32 form
followed by a cast down and a cast up, so its result is the correctly rounded one. What that says
of an engine and what it does not: docs/emulation.md.
"""

from collections.abc import Collection

from onnx import ModelProto

from trtforge.errors import GraphError, Place
from trtforge.graph.cleanup.functions import InlineFunctions
from trtforge.graph.model import Model
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.weights import graph_nodes, model_tensors
from trtforge.precision.emulation.twin import TYPE_ATTRIBUTES, Twin
from trtforge.precision.emulation.types import NARROW, is_narrow_collection
from trtforge.precision.typeinfo import infer


def emulate(model: Model, *, wide_ends: Collection[str] = (), kept: Collection[str] = ()) -> Model:
    """Make the FP32 twin of a typed model.

    Every tensor of the model is in the twin under its name, as its readers see it: FP16 and BF16
    tensors are rounded and held in FP32, others (INT8, FP8, ...) have their own type. The graph's
    inputs and outputs keep their types but for those in `wide_ends`. FP8 between QuantizeLinear and
    DequantizeLinear, which ONNX Runtime converts slowly, is computed in FP32 with the same bits; it
    is no tensor of the twin unless `kept` names it.

    Constants keep their rounded values; Q/DQ nodes stay, their scales become FP32 with the same
    values; operators that only move or choose values get no casts, since they round nothing.
    Bodies of If, Loop and Scan are treated alike; local functions are written out first.

    Args:
        model: with FP16 or BF16 tensors; a model without any comes back unchanged.
        wide_ends: names of inputs and outputs that become FP32 and are rounded inside, so that the
            twin is fed like the model before the cast. BF16 ones must be among them for a run by
            ONNX Runtime's Python interface, which has no BF16 arrays.
        kept: names of FP8 tensors that shall be in the twin.

    Returns:
        A model for ONNX Runtime, to be run with optimizations off or basic.

    Raises:
        GraphError: TF0531, the model's types contradict each other; TF0547, a local function
            cannot be written out; TF0548, an input is a sequence of FP16 or BF16 tensors.
    """
    if not _names_narrow_types(model.proto):
        return model
    model = _without_functions(model)
    for value in model.proto.graph.input:
        if is_narrow_collection(value.type):
            raise GraphError(
                "TF0548",
                f"the input '{value.name}' is a sequence of FP16 or BF16 tensors, which cannot "
                "be emulated",
                "let the graph take one tensor and split it",
                Place(node=value.name),
            )
    files = model.files.derived()
    twin = Twin(model.proto.graph, files, model.opset, frozenset(wide_ends), frozenset(kept))
    proto = ModelProto()
    merge_fields(model.proto, proto, skip={"graph"})
    proto.graph.CopyFrom(twin.main_graph(model.proto.graph, infer(model.proto).graph))
    files.release()  # the narrow values have been read
    return Model(proto, files=files)


def _names_narrow_types(proto: ModelProto) -> bool:
    """Whether anything is FP16 or BF16: that begins at an end, a constant or an attribute."""
    ends = [value.type for value in (*proto.graph.input, *proto.graph.output)]
    if any(kind.tensor_type.elem_type in NARROW or is_narrow_collection(kind) for kind in ends):
        return True
    if any(tensor.data_type in NARROW for tensor in model_tensors(proto)):
        return True
    calls = {(function.domain, function.name) for function in proto.functions}
    return any(
        attribute.i in NARROW
        and (attribute.name in TYPE_ATTRIBUTES or (node.domain, node.op_type) in calls)
        for graph in (proto.graph, *proto.functions)
        for node in graph_nodes(graph)
        for attribute in node.attribute
    )


def _without_functions(model: Model) -> Model:
    if not model.proto.functions:
        return model
    inlined, result = InlineFunctions().apply_model(model)
    if inlined.proto.functions:
        left = inlined.proto.functions[0].name
        reasons = "; ".join(note.reason for note in result.notes if note.kind == "refused")
        raise GraphError(
            "TF0547",
            f"the local function '{left}' cannot be written out, so what it computes cannot be "
            f"rounded: {reasons}",
            "raise the model and its functions to one operator set",
            Place(node=left),
        )
    return inlined
