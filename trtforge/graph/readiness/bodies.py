"""The function bodies that the ONNX standard gives operators, written into a graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, FunctionProto, NodeProto, helper, numpy_helper

from trtforge.graph.dialect import export_node
from trtforge.graph.edit import Editor


@dataclass(frozen=True)
class FunctionBody:
    """A body that can take a node's place.

    Attributes:
        editor: of the graph.
        node: which node.
        function: its body, with the values of the node's attributes.
    """

    editor: Editor
    node: gs.Node
    function: FunctionProto

    def write(self) -> None:
        """Replace the node by its body."""
        known: dict[str, gs.Tensor] = {"": gs.Variable.empty()}
        for name, index in zip(self.function.input, range(len(self.function.input)), strict=True):
            given = self.node.inputs[index] if index < len(self.node.inputs) else None
            known[name] = given if given is not None else gs.Variable.empty()
        results = dict(zip(self.function.output, self.node.outputs, strict=False))
        for step in self.function.node:
            if step.op_type == "Constant" and step.output[0] not in results:
                known[step.output[0]] = self._constant(step)
                continue
            outputs = []
            for name in step.output:
                made = results.get(name) if name else gs.Variable.empty()
                outputs.append(made if made is not None else self._variable(name))
                known[name] = outputs[-1]
            attributes = {a.name: helper.get_attribute_value(a) for a in step.attribute}
            plain = {key: _plain(value) for key, value in attributes.items()}
            inputs = [known[name] for name in step.input]
            label = f"{self.node.name or self.node.op}/{outputs[0].name}"
            self.editor.add(step.op_type, inputs, outputs, self.node, plain, label)
        self.editor.remove(self.node)

    def _variable(self, name: str) -> gs.Variable:
        return self.editor.variable(f"{self.node.outputs[0].name}/{name}")

    def _constant(self, step: NodeProto) -> gs.Tensor:
        value = helper.get_attribute_value(step.attribute[0])
        kind = step.attribute[0].name
        if kind == "value":
            array = numpy_helper.to_array(value)
        else:
            dtype = "float32" if kind.startswith("value_float") else "int64"
            array = np.asarray(value, dtype)
        return self.editor.constant(f"{self.node.outputs[0].name}/{step.output[0]}", array)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return gs.Constant("", numpy_helper.to_array(value))
    return value


def function_of(editor: Editor, node: gs.Node) -> FunctionBody | str | None:
    """Return the body of a node's operator, why it cannot be written here, or None without one."""
    try:
        schema: Any = onnx.defs.get_schema(node.op, editor.opset, "")
    except onnx.defs.SchemaError:
        return None
    proto = NodeProto()
    export_node(node, proto)
    function = _plain_body(schema, editor.opset) or _body_in_context(editor, node, schema, proto)
    if function is None or isinstance(function, str):
        return function
    values = _attributes(schema, proto)
    body = FunctionProto()
    body.CopyFrom(function)
    for step in body.node:
        _fill_in(step, values)
        if (why := _misfit(step, editor.opset)) is not None:
            return why
    return FunctionBody(editor, node, body)


def _plain_body(schema: Any, opset: int) -> FunctionProto | None:
    versions = [v for v in schema.function_opset_versions if v <= opset]
    if not schema.has_function or not versions:
        return None
    return _parsed(schema.get_function_with_opset_version(max(versions)))


def _parsed(found: bytes) -> FunctionProto | None:
    if not found:
        return None
    function = FunctionProto()
    function.ParseFromString(found)
    return function


def _body_in_context(
    editor: Editor, node: gs.Node, schema: Any, proto: NodeProto
) -> FunctionProto | str | None:
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= editor.opset]
    if not schema.has_context_dependent_function or not versions:
        return None
    types = []
    for tensor in node.inputs:
        dtype = editor.dtype(tensor) if tensor.name else None
        if tensor.name and dtype is None:
            return f"the element type of '{tensor.name}' is not known"
        kind = 0 if dtype is None else int(helper.np_dtype_to_tensor_dtype(dtype))
        dims = editor.dims(tensor) if tensor.name else None
        types.append(helper.make_tensor_type_proto(kind, dims).SerializeToString())
    found: bytes = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto.SerializeToString(), types
    )
    return _parsed(found) or "its body depends on what is not known"


def _attributes(schema: Any, proto: NodeProto) -> dict[str, AttributeProto]:
    values = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type
    }
    return values | {attribute.name: attribute for attribute in proto.attribute}


def _fill_in(step: NodeProto, values: dict[str, AttributeProto]) -> None:
    """Put the node's attributes in the places of the body that refer to them."""
    filled = []
    for attribute in step.attribute:
        if not attribute.ref_attr_name:
            filled.append(attribute)
        elif attribute.ref_attr_name in values:
            value = AttributeProto()
            value.CopyFrom(values[attribute.ref_attr_name])
            value.name = attribute.name
            filled.append(value)
    kept = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in filled]
    del step.attribute[:]
    step.attribute.extend(kept)


def _misfit(step: NodeProto, opset: int) -> str | None:
    """Return why a step of a body, written for an older operator set, does not fit this one."""
    if any(attribute.type == AttributeProto.GRAPH for attribute in step.attribute):
        return f"its body holds branches ({step.op_type})"
    if step.domain not in ("", "ai.onnx"):
        return f"its body holds {step.op_type} of {step.domain}"
    schema = onnx.defs.get_schema(step.op_type, opset, "")
    strange = {attribute.name for attribute in step.attribute} - set(schema.attributes)
    if strange or not schema.min_input <= len(step.input) <= schema.max_input:
        return f"its body was written for another {step.op_type} than that of opset {opset}"
    return None
