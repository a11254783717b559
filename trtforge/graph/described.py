"""How the tensors of a graph are described in ONNX: in the words of the model while they hold."""

import onnx_graphsurgeon as gs
from onnx import GraphProto, ValueInfoProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter

from trtforge.graph.skeleton import merge_fields

Infos = dict[str, ValueInfoProto]
"""Descriptions by the name of the tensor."""


def source_infos(proto: GraphProto | None) -> Infos:
    """Return all that the source of a graph says of its tensors."""
    if proto is None:
        return {}
    return {info.name: info for info in (*proto.value_info, *proto.output, *proto.input)}


def end_infos(proto: GraphProto | None) -> tuple[Infos, Infos]:
    """Return what the source says of its inputs, and of its outputs."""
    if proto is None:
        return {}, {}
    return {info.name: info for info in proto.input}, {info.name: info for info in proto.output}


def end_info(tensor: gs.Tensor, own: Infos, others: Infos) -> ValueInfoProto:
    """Describe an input or output as the source describes it at this end.

    GraphSurgeon has one description for each tensor: of one that is input and output it knows only
    the one end, and of a constant only the values.
    """
    source = own.get(tensor.name)
    if source is None:
        return value_info(tensor, own)
    other = others.get(tensor.name)
    if other is not None and _says_the_same(other, tensor):
        return source
    if isinstance(tensor, gs.Constant):
        described = OnnxImporter.import_tensor(source)
        if described.dtype == tensor.dtype:
            return source
    return value_info(tensor, own)


def value_info(tensor: gs.Tensor, infos: Infos) -> ValueInfoProto:
    """Describe a tensor; the original description is kept word for word while it is true."""
    source = infos.get(tensor.name)
    if source is not None and _says_the_same(source, tensor):
        return source
    info: ValueInfoProto = OnnxExporter.export_value_info_proto(tensor, False)
    if source is not None:
        merge_fields(source, info, skip={"name", "type"})
    return info


def _says_the_same(source: ValueInfoProto, tensor: gs.Tensor) -> bool:
    described = OnnxImporter.import_tensor(source)
    if described.dtype is None:
        return tensor.dtype is None
    return bool(described.dtype == tensor.dtype and described.shape == tensor.shape)
