"""Between ONNX and GraphSurgeon, losing nothing on the way.

GraphSurgeon drops documentation, metadata, part of value_info, unused initializers, functions'
details and four kinds of attributes, and it copies constants of an outer graph into bodies.
So the import remembers where each node came from, and the export is our own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    helper,
    numpy_helper,
)
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter, dtype_to_onnx
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues
from onnx_graphsurgeon.logger import G_LOGGER

from trtforge.errors import GraphError
from trtforge.graph.described import Infos, end_info, end_infos, source_infos, value_info
from trtforge.graph.external import ExternalFiles
from trtforge.graph.lazy_values import ComputedValues, MappedValues
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.weights import HELD_BYTES, Extent, is_stored_as, set_external

# GraphSurgeon reports through a logger that prints; what matters comes as exceptions.
G_LOGGER.severity = G_LOGGER.CRITICAL

_FIRST_IR_WITH_FREE_INITIALIZERS = 4
"""From IR version 4 on, initializers need not be inputs (onnx.proto3, IR_VERSION_2019_1_22)."""

_KNOWN_ATTRIBUTES = {
    AttributeProto.FLOAT,
    AttributeProto.INT,
    AttributeProto.STRING,
    AttributeProto.TENSOR,
    AttributeProto.GRAPH,
    AttributeProto.FLOATS,
    AttributeProto.INTS,
    AttributeProto.STRINGS,
}

_ODD = "export it again, or with another opset; without clean-up it is left as it is: passes none"


@dataclass
class Origin:
    """What an imported graph was made from.

    Attributes:
        proto: the graph in ONNX.
        unused: initializers that no node uses; the export puts them back.
        lent: constants that are this graph's, though only bodies may read them.
    """

    proto: GraphProto
    unused: list[TensorProto]
    lent: set[str] = field(default_factory=set)


def import_graph(proto: ModelProto, files: ExternalFiles) -> gs.Graph:
    """Import a model; see `Model.to_graph`."""
    try:
        graph = gs.import_onnx(proto)
    except Exception as error:  # GraphSurgeon raises whatever the protobuf makes it raise
        raise GraphError("TF0410", f"GraphSurgeon cannot read the model: {error}", _ODD) from error
    graph.import_domains = list(_copied(proto.opset_import))  # not the live list of the model
    _remember(graph, proto.graph, files)
    return graph


def _remember(graph: gs.Graph, proto: GraphProto, files: ExternalFiles) -> None:
    for node, source in zip(graph.nodes, proto.node, strict=True):
        node.source = source
        for tensor in node.inputs:
            _map_values(tensor, files)
        for attribute in source.attribute:
            value = node.attrs.get(attribute.name)
            if isinstance(value, gs.Graph):
                _remember(value, attribute.g, files)
            elif isinstance(value, gs.Constant):
                _map_values(value, files)
    for tensor in graph.outputs:
        _map_values(tensor, files)
    used = _names_used(proto)
    graph.origin = Origin(proto, [t for t in proto.initializer if t.name not in used])


def _map_values(tensor: gs.Tensor, files: ExternalFiles) -> None:
    if isinstance(tensor, gs.Constant) and type(tensor._values) is LazyValues:
        tensor._values = MappedValues(tensor._values.tensor, files)


def _names_used(proto: GraphProto) -> set[str]:
    used = {info.name for info in proto.output}
    for node in proto.node:
        used.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                used |= _names_used(attribute.g)
            for body in attribute.graphs:
                used |= _names_used(body)
    return used


def export_model(
    proto: ModelProto, graph: gs.Graph, files: ExternalFiles
) -> tuple[ModelProto, ExternalFiles]:
    """Export a graph into a copy of the model it came from; see `Model.with_graph`.

    Returns:
        The model, and its files: those that it came with, and the big constants of the graph,
        which are held and not copied into the model.
    """
    result, derived = ModelProto(), files.derived()
    merge_fields(proto, result, skip={"graph", "opset_import"})
    result.ir_version = max(proto.ir_version, _FIRST_IR_WITH_FREE_INITIALIZERS)
    result.opset_import.extend(_domains(graph))
    try:
        _export_graph(graph, result.graph, frozenset(), derived)
    except GraphError:
        raise
    except Exception as error:  # see import_graph
        raise GraphError("TF0410", f"the graph cannot be written as ONNX: {error}", _ODD) from error
    return result, derived


def _domains(graph: gs.Graph) -> list[OperatorSetIdProto]:
    """The imported operator sets, and version 1 of those that nodes use without an import."""
    imports = {imported.domain: imported for imported in _copied(graph.import_domains or ())}
    standard = "ai.onnx" if "ai.onnx" in imports else ""
    imports.setdefault(standard, OperatorSetIdProto()).version = graph.opset
    for node in all_nodes(graph):
        if node.domain and node.domain != "ai.onnx" and node.domain not in imports:
            imports[node.domain] = OperatorSetIdProto(domain=node.domain, version=1)
    return list(imports.values())


def _copied(imports: Iterable[OperatorSetIdProto]) -> Iterator[OperatorSetIdProto]:
    for imported in imports:
        copy = OperatorSetIdProto()
        copy.CopyFrom(imported)
        yield copy


def all_nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    """Yield the nodes of a graph and of the bodies of its If, Loop and Scan nodes."""
    for node in graph.nodes:
        yield node
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from all_nodes(value)


def _export_graph(
    graph: gs.Graph,
    target: GraphProto,
    outer: frozenset[str],
    files: ExternalFiles | None = None,
) -> None:
    """Write a graph; `files` holds big constants, and without it they go into the graph."""
    origin: Origin | None = getattr(graph, "origin", None)
    target.name = graph.name
    if graph.doc_string:
        target.doc_string = graph.doc_string
    constants = _own_constants(graph, origin, outer)
    _export_constants(constants, origin, target, files)
    proto = None if origin is None else origin.proto
    infos = source_infos(proto)
    inputs, outputs = end_infos(proto)
    for tensor in graph.inputs:
        target.input.append(end_info(tensor, inputs, outputs))
    for tensor in graph.outputs:
        target.output.append(end_info(tensor, outputs, inputs))
    _export_value_info(graph, infos, target)
    inner = outer | frozenset(constants)
    for node in graph.nodes:
        export_node(node, target.node.add(), inner)
    if origin is not None:
        _put_back_graph(origin.proto, target)


def _own_constants(
    graph: gs.Graph, origin: Origin | None, outer: frozenset[str]
) -> dict[str, gs.Constant]:
    """Constants that belong to this graph: used by it, or by a body but defined here."""
    own = {t.name: t for t in graph.outputs if isinstance(t, gs.Constant) and t.name not in outer}
    defined = set() if origin is None else {t.name for t in origin.proto.initializer} | origin.lent
    own_nodes = {id(node) for node in graph.nodes}
    for node in all_nodes(graph):
        for tensor in node.inputs:
            here = id(node) in own_nodes or tensor.name in defined
            if here and isinstance(tensor, gs.Constant) and tensor.name not in outer:
                own.setdefault(tensor.name, tensor)
    return own


def _export_constants(
    constants: dict[str, gs.Constant],
    origin: Origin | None,
    target: GraphProto,
    files: ExternalFiles | None,
) -> None:
    unused = {} if origin is None else {tensor.name: tensor for tensor in origin.unused}
    known = [] if origin is None else [tensor.name for tensor in origin.proto.initializer]
    order = dict.fromkeys((*known, *constants))
    for name in order:
        if name in constants:
            constant = constants[name]
            if isinstance(constant._values, SparseValues):
                target.sparse_initializer.append(constant._values.tensor)
            else:
                _export_tensor(constant, target.initializer.add(), files)
        elif name in unused:
            target.initializer.append(unused[name])


def _export_tensor(
    constant: gs.Constant, target: TensorProto, files: ExternalFiles | None = None
) -> None:
    values = constant._values
    if isinstance(values, ComputedValues):
        if files is not None:
            target.data_type = dtype_to_onnx(constant.export_dtype)
            target.dims.extend(values.shape)
            set_external(target, Extent(files.hold_made(values.make), 0, values.nbytes))
            target.name = constant.name
            return
        values = values.load()
    if isinstance(values, LazyValues):
        target.CopyFrom(values.tensor)
    else:
        wanted = dtype_to_onnx(constant.export_dtype)
        if wanted != dtype_to_onnx(constant.dtype):
            values = values.astype(helper.tensor_dtype_to_np_dtype(wanted))
        values = np.asarray(values)
        if files is not None and values.nbytes >= HELD_BYTES and is_stored_as(values, wanted):
            target.data_type = wanted
            target.dims.extend(values.shape)
            location = files.hold(np.ascontiguousarray(values))
            set_external(target, Extent(location, 0, values.nbytes))
        else:
            target.CopyFrom(numpy_helper.from_array(values))
    if target.name != constant.name:  # an absent name stays absent
        target.name = constant.name


def _export_value_info(graph: gs.Graph, infos: Infos, target: GraphProto) -> None:
    ends = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    inner = {
        tensor.name: tensor
        for node in graph.nodes
        for tensor in node.outputs
        if tensor.name and tensor.name not in ends and isinstance(tensor, gs.Variable)
    }
    order = dict.fromkeys((*(name for name in infos if name in inner), *inner))
    for name in order:
        tensor = inner[name]
        if tensor.dtype is not None or name in infos:
            target.value_info.append(value_info(tensor, infos))


def export_node(node: gs.Node, target: NodeProto, outer: frozenset[str] = frozenset()) -> None:
    """Write a node as ONNX, with all that it had when it was imported.

    Args:
        node: the node.
        target: an empty message.
        outer: names of constants that its subgraphs need not define.
    """
    source: NodeProto | None = getattr(node, "source", None)
    target.op_type = node.op
    target.input.extend(tensor.name for tensor in node.inputs)
    target.output.extend(tensor.name for tensor in node.outputs)
    if node.name:
        target.name = node.name
    if node.domain:
        target.domain = node.domain
    known = {} if source is None else {a.name: a for a in source.attribute}
    for name, value in node.attrs.items():
        _export_attribute(target.attribute.add(), name, value, known.get(name), outer)
    if source is None:
        return
    for attribute in source.attribute:
        if attribute.type not in _KNOWN_ATTRIBUTES and attribute.name not in node.attrs:
            target.attribute.append(attribute)
    merge_fields(source, target, skip=_NODE_FIELDS_WRITTEN)


_NODE_FIELDS_WRITTEN = {"name", "op_type", "domain", "input", "output", "attribute"}


def _export_attribute(
    target: AttributeProto,
    name: str,
    value: Any,
    source: AttributeProto | None,
    outer: frozenset[str],
) -> None:
    if isinstance(value, gs.Graph):
        target.name, target.type = name, AttributeProto.GRAPH
        _export_graph(value, target.g, outer)
    elif isinstance(value, gs.Tensor):
        target.name, target.type = name, AttributeProto.TENSOR
        _export_tensor(value, target.t)
    elif isinstance(value, list | tuple) and not value:
        # An empty list does not tell its type; the source does, and INTS is by far the usual.
        target.name = name
        target.type = AttributeProto.INTS if source is None else source.type
    else:
        if source is not None and source.type == AttributeProto.FLOAT:
            value = float(value)
        target.CopyFrom(_plain_attribute(name, value))
    if source is not None and source.doc_string:
        target.doc_string = source.doc_string


def _plain_attribute(name: str, value: Any) -> AttributeProto:
    exported: AttributeProto = OnnxExporter.export_attributes({name: value})[0]
    return exported


def _put_back_graph(source: GraphProto, target: GraphProto) -> None:
    merge_fields(source, target, skip=_GRAPH_FIELDS_WRITTEN)
    names = {name for node in target.node for name in (*node.input, *node.output)}
    for annotation in source.quantization_annotation:
        if annotation.tensor_name in names:
            target.quantization_annotation.append(annotation)


_GRAPH_FIELDS_WRITTEN = {
    "name",
    "doc_string",
    "node",
    "initializer",
    "sparse_initializer",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
}
