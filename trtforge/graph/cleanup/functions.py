"""ONNX's local functions are written out where they are called."""

import onnx.inliner
from onnx import ModelProto

from trtforge.graph.model import Model
from trtforge.graph.report import Note, PassResult
from trtforge.graph.weights import graph_nodes


class InlineFunctions:
    """Inline local functions, so that every other pass sees what they are made of.

    Matches: a model with local functions (https://onnx.ai/onnx/repo-docs/IR.html#functions).
    Rewrites to: the nodes of the functions, under names that are new; functions that nothing
    calls go.
    Refuses when: the onnx package's inliner cannot (another operator set in the function than in
    the model), with its reason.

    Any opset; local functions exist since IR version 8.
    """

    name = "inline-functions"

    def concerns(self, model: Model) -> bool:
        """Return whether there are functions."""
        return bool(model.proto.functions)

    def apply_model(self, model: Model) -> tuple[Model, PassResult]:
        """Return the model without functions, or the same model."""
        functions = list(model.proto.functions)
        try:
            inlined = onnx.inliner.inline_local_functions(_with_defaults(model.proto))
        except Exception as error:  # the inliner raises RuntimeError and its own types
            note = Note("refused", functions[0].name, f"functions cannot be inlined: {error}")
            return model, PassResult(0, (note,))
        gone = len(functions) - len(inlined.functions)
        left = {(f.domain, f.name) for f in inlined.functions}
        notes = [
            Note("refused", f.name, "the inliner leaves this function")
            if (f.domain, f.name) in left
            else Note("matched", f.name, "written out where it is called")
            for f in functions
        ]
        if not gone:
            return model, PassResult(0, tuple(notes))
        return Model(inlined, files=model.files), PassResult(gone, tuple(notes))


def _with_defaults(proto: ModelProto) -> ModelProto:
    """Write the defaults of functions' attributes onto their calls: the inliner forgets them."""
    defaults = {(f.domain, f.name): list(f.attribute_proto) for f in proto.functions}
    if not any(defaults.values()):
        return proto
    result = ModelProto()
    result.CopyFrom(proto)
    for graph in (result.graph, *result.functions):
        for node in graph_nodes(graph):
            given = {attribute.name for attribute in node.attribute}
            for attribute in defaults.get((node.domain, node.op_type), ()):
                if attribute.name not in given:
                    node.attribute.append(attribute)
    return result
