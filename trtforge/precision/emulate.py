"""The typed graph as an FP32 graph that rounds after every operator: exact FP16 and BF16 on a CPU.

ONNX Runtime's CPU kernels compute FP16 graphs in FP32 and drop the casts between operators, which
hides overflow and accumulated rounding. Here each FP16 or BF16 operator becomes its FP32 form
followed by a cast down and a cast up, so its result is the correctly rounded one. What that says
of an engine and what it does not: docs/emulation.md.
"""

from onnx import GraphProto, ModelProto, TensorProto

from trtforge.errors import GraphError, Place
from trtforge.graph.cleanup.functions import InlineFunctions
from trtforge.graph.model import Model
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.weights import graph_nodes, graph_tensors
from trtforge.precision.emulation.twin import Twin
from trtforge.precision.emulation.types import NARROW, is_narrow_collection
from trtforge.precision.typeinfo import infer

_NO_NUMPY_TYPE = frozenset([TensorProto.BFLOAT16])
"""What ONNX Runtime's Python takes and gives no arrays of (1.32: "No corresponding Numpy type")."""


def emulate(model: Model, *, wide_ends: bool = False) -> Model:
    """Make the FP32 twin of a typed model.

    Every tensor of the model is in the twin under its name, as its readers see it: FP16 and BF16
    tensors are rounded and held in FP32, others (INT8, FP8, ...) have their own type. The graph's
    FP16 inputs and outputs keep their type. BF16 ones become FP32, rounded inside, since ONNX
    Runtime's Python interface has no BF16 arrays.

    Constants keep their rounded values; Q/DQ nodes stay, their scales become FP32 with the same
    values; operators that only move or choose values get no casts, since they round nothing.
    Bodies of If, Loop and Scan are treated alike; local functions are written out first.

    Args:
        model: with FP16 or BF16 tensors; a model without any comes back unchanged.
        wide_ends: let FP16 inputs and outputs become FP32 too, as in the model before the cast.

    Returns:
        A model for ONNX Runtime, to be run with optimizations off or basic.

    Raises:
        GraphError: TF0531, the model's types contradict each other; TF0547, a local function
            cannot be written out; TF0548, an input is a sequence of FP16 or BF16 tensors.
    """
    model = _without_functions(model)
    inferred = infer(model.proto).graph
    if not _has_narrow(model.proto.graph, inferred):
        return model
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
    ends = frozenset(NARROW) if wide_ends else _NO_NUMPY_TYPE
    twin = Twin(model.proto.graph, files, model.opset, ends)
    proto = ModelProto()
    merge_fields(model.proto, proto, skip={"graph"})
    proto.graph.CopyFrom(twin.main_graph(model.proto.graph, inferred))
    return Model(proto, files=files)


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


def _has_narrow(graph: GraphProto, inferred: GraphProto) -> bool:
    if any(tensor.data_type in NARROW for tensor in graph_tensors(graph)):
        return True
    return any(
        value.type.tensor_type.elem_type in NARROW or is_narrow_collection(value.type)
        for scope in _scopes(inferred)
        for value in (*scope.input, *scope.output, *scope.value_info)
    )


def _scopes(graph: GraphProto) -> list[GraphProto]:
    bodies = [a.g for node in graph_nodes(graph) for a in node.attribute if a.HasField("g")]
    return [graph, *bodies]
