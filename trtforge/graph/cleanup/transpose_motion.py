"""Transposes are moved through operators that do not care for the order of axes, to cancel."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.cleanup.transpose_regions import Region, Scene, candidates
from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.layout import inverse, is_identity
from trtforge.graph.nodes import constant_values, node_label


class MoveTransposes:
    """Move Transposes where that leaves fewer of them.

    Matches: nodes that hang together and work on any order of axes: elementwise operators (with
    operands of the same rank, constants, or single numbers), Cast, Concat, Split, Slice, Pad,
    Softmax, LogSoftmax (opset 13 on), reductions that keep their axes, ArgMax, ArgMin,
    LayerNormalization whose axes stay the last ones, and QuantizeLinear and DequantizeLinear with
    one scale; with Transposes before or after them
    (https://onnx.ai/onnx/operators/onnx__Transpose.html).
    Rewrites to: the same nodes on tensors u with t = Transpose(u, p), axes and constants
    permuted. A Transpose by p before them and one by the inverse of p after them vanish; other
    ones are merged; a reduction that takes axes off reads u where the axes left are in order; a
    Transpose is put where a tensor enters that is not transposed, or leaves for another reader.
    Refuses when: the number of Transposes would not fall, counted before anything is changed.
    Nodes without which it falls as much are left alone.
    """

    name = "transpose-motion"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        scene, seen = Scene(editor), set[int]()
        for transpose in editor.nodes("Transpose"):
            starts = scene.readers(transpose.outputs[0])
            before = editor.producer(transpose.inputs[0])
            for start in starts if before is None else [before, *starts]:
                if not start.dead and start.owner is editor:
                    nodes = scene.part_around(start, seen)
                    if nodes:
                        _store_otherwise(scene, nodes, transpose, seen)


def _store_otherwise(
    scene: Scene, nodes: list[gs.Node], transpose: gs.Node, seen: set[int]
) -> None:
    best: Region | None = None
    best_cost = 0
    for order in candidates(scene, nodes):
        region = Region(scene, nodes, order)
        region.shrink()
        cost = region.cost()
        if cost < best_cost:
            best, best_cost = region, cost
    if best is None:
        scene.editor.refuse(transpose, "moving it through the nodes around leaves no fewer")
        return
    count = len(best.nodes)
    reason = f"{count} nodes work on another order of axes: {-best_cost} Transposes fewer"
    scene.editor.match(best.nodes[0], reason)
    commit = _Commit(best)
    commit.run()
    seen.update(map(id, commit.written))  # another order for them is for the next round


class _Commit:
    """Writes the nodes of a region for the stored order."""

    def __init__(self, region: Region) -> None:
        self._region, self._editor, self._order = region, region.editor, region.order
        self._stored: dict[int, gs.Tensor] = {}
        self._entered: list[gs.Node] = []
        self.written: list[gs.Node] = []

    def run(self) -> None:
        region, editor = self._region, self._editor
        readers = {
            id(tensor): region.scene.readers(tensor)
            for node in region.nodes
            for tensor in node.outputs
        }
        for node in region.nodes:
            self._write(node, readers)
        for transpose in self._entered:
            result = transpose.outputs[0]
            if not transpose.dead and not editor.users(result, 1) and not editor.is_kept(result):
                editor.remove(transpose)

    def _write(self, node: gs.Node, readers: dict[int, list[gs.Node]]) -> None:
        editor, form = self._editor, self._region.forms[id(node)]
        inputs = list(node.inputs)
        for index in form.tensors:
            inputs[index] = self._stored_form(node.inputs[index], node)
        for index, values in form.others.items():
            constant = editor.constant(f"{node.outputs[0].name}_order", values)
            inputs[index : index + 1] = [constant]
        outputs = [self._result(tensor, readers[id(tensor)]) for tensor in node.outputs]
        new = editor.add(node.op, inputs, outputs, node, form.attrs, node.name)
        self.written.append(new)
        for tensor, stored in zip(node.outputs, outputs, strict=True):
            if tensor.name:
                self._serve(tensor, stored, readers[id(tensor)], node)
        editor.remove(node)

    def _stored_form(self, tensor: gs.Tensor, reader: gs.Node) -> gs.Tensor:
        key = id(tensor)
        if key not in self._stored:
            self._stored[key] = self._entering(tensor, reader)
        return self._stored[key]

    def _entering(self, tensor: gs.Tensor, reader: gs.Node) -> gs.Tensor:
        editor, back = self._editor, inverse(self._order)
        values = constant_values(tensor)
        if values is not None:
            whole = values.reshape((1,) * (len(back) - values.ndim) + values.shape)
            return editor.constant(
                f"{tensor.name}_stored", np.ascontiguousarray(whole.transpose(back))
            )
        source, order = tensor, self._region.source_order(tensor)
        if order is not None:
            transpose = editor.producer(tensor, "Transpose")
            assert transpose is not None
            self._entered.append(transpose)
            source = transpose.inputs[0]
        if order is not None and is_identity(order):
            return source
        result = self._variable(tensor)
        editor.add("Transpose", [source], [result], reader, {"perm": list(order or back)})
        return result

    def _variable(self, tensor: gs.Tensor) -> gs.Tensor:
        editor, dims = self._editor, self._editor.dims(tensor)
        stored: Dims | None = None if dims is None else tuple(dims[a] for a in inverse(self._order))
        return editor.variable(f"{tensor.name}_stored", editor.dtype(tensor), stored)

    def _result(self, tensor: gs.Tensor, readers: list[gs.Node]) -> gs.Tensor:
        """Make the stored form of a result, under the name of a Transpose that it replaces."""
        if not tensor.name:
            return tensor
        cancelled = self._region.cancelled(tensor, readers)
        stored = cancelled[0].outputs[0] if cancelled else self._variable(tensor)
        self._stored[id(tensor)] = stored
        return stored

    def _serve(
        self, tensor: gs.Tensor, stored: gs.Tensor, readers: list[gs.Node], at: gs.Node
    ) -> None:
        """Let readers outside the region have what they read."""
        editor, region = self._editor, self._region
        cancelled = {id(node) for node in region.cancelled(tensor, readers)}
        restores = region.needs_restoring(tensor, readers)
        for reader in _once(readers):
            order = region.new_order(tensor, reader)
            dropped = region.dropped(reader, tensor)
            if id(reader) in cancelled:
                if reader.outputs[0] is not stored:
                    editor.replace_uses(reader.outputs[0], stored)
                editor.remove(reader)
            elif order is not None:
                editor.set_input(reader, 0, stored)
                editor.set_attribute(reader, "perm", list(order))
            elif dropped is not None and not restores:
                _reduce_stored(editor, reader, stored, dropped)
        if restores:
            label = f"{node_label(at)}_restored"
            attrs = {"perm": list(self._order)}
            editor.add("Transpose", [stored], [tensor], at, attrs, label if at.name else "")


def _once(nodes: list[gs.Node]) -> list[gs.Node]:
    return list({id(node): node for node in nodes}.values())


def _reduce_stored(
    editor: Editor, reader: gs.Node, stored: gs.Tensor, axes: tuple[int, ...]
) -> None:
    editor.set_input(reader, 0, stored)
    if "axes" in reader.attrs:
        editor.set_attribute(reader, "axes", list(axes))
    else:
        base = f"{reader.outputs[0].name}_axes"
        editor.set_input(reader, 1, editor.constant(base, np.asarray(axes, np.int64)))
