"""Carries out a placement: gives tensors their types, converts constants, inserts shared casts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trtforge.graph.lazy_values import ComputedValues
from trtforge.graph.weights import HELD_BYTES
from trtforge.precision import opgroups as ops
from trtforge.precision.names import Names
from trtforge.precision.placement import Placement, scopes
from trtforge.precision.ports import is_float32
from trtforge.precision.scales import FLOAT_MAX, NUMPY_TYPE, round_up
from trtforge.precision.typeinfo import FLOAT_NAMES
from trtforge.recipe.schema import Precision


@dataclass
class _Use:
    """One place that reads an FP32 tensor: `holder.inputs[index]` of a node or body."""

    holder: gs.Node | gs.Graph
    index: int
    type: str
    is_clip_bound: bool = False


class Retyper:
    """Rewrites a graph and its bodies in place, once; tensor names are unique in all of them."""

    def __init__(
        self,
        graph: gs.Graph,
        types: Mapping[str, int],
        placement: Placement,
        precision: Precision,
    ) -> None:
        """Prepare.

        Args:
            graph: topologically sorted; changed in place.
            types: element type of each tensor as the graph came.
            placement: the type of every node.
            precision: its type is preferred where uses are equally many.
        """
        self._graph = graph
        self._types = types
        self._placement = placement
        self._base = precision.type
        self._converts_ends = precision.io_types == "convert"
        self._names = Names(graph)
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._uses: dict[str, list[_Use]] = defaultdict(list)
        self._tensors: dict[str, gs.Tensor] = {}
        self._produced: dict[str, str] = {}
        self._scales: dict[tuple[str, str], gs.Constant] = {}
        self._converted: dict[tuple[int, tuple[int, ...], str, bool], ComputedValues] = {}
        self._scopes = list(scopes(graph))
        self._home = {tensor.name: scope for scope in self._scopes for tensor in scope.inputs}
        self._first: dict[int, list[gs.Node]] = defaultdict(list)
        self._after: dict[int, list[gs.Node]] = defaultdict(list)
        self._casts_added = 0

    def apply(self) -> int:
        """Rewrite the graph.

        Returns:
            The number of Cast nodes added.
        """
        self._collect_uses()
        self._settle_links()
        self._settle_inputs()
        for node in self._nodes():
            self._settle_outputs(node)
        if self._converts_ends:
            self._outputs = {n for n in self._outputs if self._produced.get(n, "fp32") == "fp32"}
        for name, tensor in list(self._tensors.items()):
            if isinstance(tensor, gs.Constant):
                self._convert_constant(name, tensor)
            else:
                self._serve_uses(name, tensor)
        for node in self._nodes():
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                self._settle_scale(node)
        self._insert_casts()
        for scope in self._scopes:
            self._drop_useless_casts(scope)
        return self._casts_added

    def _nodes(self) -> Iterator[gs.Node]:
        for scope in self._scopes:
            yield from scope.nodes

    # -- who reads what, in which type ---------------------------------------------------------

    def _collect_uses(self) -> None:
        for scope in self._scopes:
            for tensor in scope.inputs:
                self._know(tensor)
            for node in scope.nodes:
                for tensor in node.outputs:
                    self._know(tensor)
        for node in self._nodes():
            self._collect_node(node)
        linked = {
            (id(body), index): kind
            for link, kind in self._placement.links.items()
            for body, index in link.inner_outputs
        }
        for body in self._scopes[1:]:
            for index, tensor in enumerate(body.outputs):
                self._use(tensor, _Use(body, index, linked.get((id(body), index), "fp32")))

    def _collect_node(self, node: gs.Node) -> None:
        placed = self._placement.nodes[id(node)]
        if node.op in ops.CONVERTERS | ops.TYPE_BLIND:
            return
        for index, switches in placed.ports.inputs.items():
            wanted = (placed.type or "fp32") if switches else "fp32"
            is_bound = node.op == "Clip" and index > 0
            self._use(node.inputs[index], _Use(node, index, wanted, is_bound))

    def _use(self, tensor: gs.Tensor, use: _Use) -> None:
        if is_float32(tensor, self._types):
            self._know(tensor)
            self._uses[tensor.name].append(use)

    def _know(self, tensor: gs.Tensor) -> None:
        if is_float32(tensor, self._types):
            self._tensors.setdefault(tensor.name, tensor)
            self._produced.setdefault(tensor.name, "fp32")

    def _settle_links(self) -> None:
        for link, kind in self._placement.links.items():
            if link.outer_input is not None:
                source = link.node.inputs[link.outer_input]
                self._use(source, _Use(link.node, link.outer_input, kind))
            made = [link.inner_input] if link.inner_input is not None else []
            if link.outer_output is not None:
                made.append(link.node.outputs[link.outer_output])
            for tensor in made:
                if is_float32(tensor, self._types):
                    self._produced[tensor.name] = kind

    def _settle_inputs(self) -> None:
        """Inputs of the model are of the narrow type where that is asked for and any reader is.

        A QuantizeLinear reads any type.
        """
        for tensor in self._graph.inputs if self._converts_ends else ():
            kinds = {use.type for use in self._uses[tensor.name]}
            is_quantized = not kinds and any(r.op == "QuantizeLinear" for r in tensor.outputs)
            if self._base in kinds or is_quantized:
                self._produced[tensor.name] = self._base

    # -- what each node produces ---------------------------------------------------------------

    def _settle_outputs(self, node: gs.Node) -> None:
        placed = self._placement.nodes[id(node)]
        for index, tensor in enumerate(node.outputs):
            if not is_float32(tensor, self._types):
                continue
            if node.op in ops.CONVERTERS:
                self._produced[tensor.name] = self._most_wanted(tensor.name)
                self._settle_converter(node, self._produced[tensor.name])
            elif placed.ports.outputs.get(index) and placed.type is not None:
                self._produced[tensor.name] = placed.type

    def _most_wanted(self, name: str) -> str:
        """FP32 for an output whose type is kept, else the type that most readers want."""
        wanted = Counter(use.type for use in self._uses[name])
        if name in self._outputs:
            return self._base if self._converts_ends else "fp32"
        if not wanted:
            return "fp32"
        most = max(wanted.values())
        candidates = sorted(kind for kind, count in wanted.items() if count == most)
        return self._base if self._base in candidates else candidates[0]

    @staticmethod
    def _settle_converter(node: gs.Node, kind: str) -> None:
        if node.op == "Cast":
            node.attrs["to"] = FLOAT_NAMES[kind]
        elif node.op == "ConstantOfShape" and kind != "fp32":
            value = node.attrs.get("value")
            filling = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
            node.attrs["value"] = gs.Constant("value", filling.astype(NUMPY_TYPE[kind]))
        elif node.op == "DequantizeLinear" and "output_dtype" in node.attrs:
            node.attrs["output_dtype"] = FLOAT_NAMES[kind]

    def _settle_scale(self, node: gs.Node) -> None:
        """Q and DQ hold their scale in the type of their float side."""
        float_side = node.inputs[0] if node.op == "QuantizeLinear" else node.outputs[0]
        kind = self._produced.get(float_side.name, "fp32")
        scale = node.inputs[1]
        if kind == "fp32" or not is_float32(scale, self._types):
            return
        if not isinstance(scale, gs.Constant):
            self._cast_scale(node, scale, kind)
            return
        key = (scale.name, kind)
        if key not in self._scales:
            values = round_up(scale.values, kind).astype(NUMPY_TYPE[kind])
            self._scales[key] = gs.Constant(self._names.fresh(f"{scale.name}_{kind}"), values)
        node.inputs[1] = self._scales[key]

    def _cast_scale(self, node: gs.Node, scale: gs.Tensor, kind: str) -> None:
        node.inputs[1] = self._cast(scale, self._produced.get(scale.name, "fp32"), kind)

    # -- serving the readers -------------------------------------------------------------------

    def _convert_constant(self, name: str, constant: gs.Constant) -> None:
        uses = self._uses[name]
        kinds = {use.type for use in uses}
        if name in self._outputs or any(t is constant for t in self._graph.inputs):
            kinds.add("fp32")
        for kind in sorted(kinds - {"fp32"}):
            mine = [use for use in uses if use.type == kind]
            clamp = all(use.is_clip_bound for use in mine)
            values = self._converted_values(constant.values, kind, clamp=clamp)
            if kinds == {kind}:
                constant.values = values
                continue
            copy = gs.Constant(self._names.fresh(f"{name}_{kind}"), values)
            self._graph.origin.lent.add(copy.name)
            for use in mine:
                _replace(use, copy)

    def _converted_values(
        self, values: npt.NDArray[np.generic], kind: str, *, clamp: bool
    ) -> npt.NDArray[np.generic] | ComputedValues:
        """Values in another type; of big ones that lie in the model's files, how to make them."""
        if values.nbytes < 2 * HELD_BYTES or values.flags.owndata:
            return _converted(values, kind, clamp=clamp)
        key = (values.__array_interface__["data"][0], values.shape, kind, clamp)
        if key not in self._converted:
            make = partial(_converted, values, kind, clamp=clamp)
            self._converted[key] = ComputedValues(values.shape, np.dtype(NUMPY_TYPE[kind]), make)
        return self._converted[key]

    def _serve_uses(self, name: str, tensor: gs.Variable) -> None:
        produced = self._produced[name]
        source = tensor
        if name in self._outputs and produced != "fp32":
            source = self._restore_output(tensor, produced)
        elif produced != "fp32":
            tensor.dtype = NUMPY_TYPE[produced]
        made: dict[str, gs.Variable] = {produced: source}
        if name in self._outputs:
            made["fp32"] = tensor
        for use in self._uses[name]:
            if use.type not in made:
                made[use.type] = self._cast(source, produced, use.type)
            if made[use.type] is not tensor:
                _replace(use, made[use.type])

    def _element_type(self, tensor: gs.Tensor) -> int | None:
        produced = self._produced.get(tensor.name)
        return FLOAT_NAMES[produced] if produced else self._types.get(tensor.name)

    def _restore_output(self, output: gs.Variable, produced: str) -> gs.Variable:
        """Move the value of a graph output to a new tensor; a Cast makes the output itself."""
        inner = gs.Variable(
            self._names.fresh(f"{output.name}_{produced}"), NUMPY_TYPE[produced], output.shape
        )
        producer = output.inputs[0]
        index = next(i for i, tensor in enumerate(producer.outputs) if tensor is output)
        for reader in list(output.outputs):
            # Readers without a type of their own (Shape, Cast, Q) follow the value.
            if id(reader) in self._placement.nodes and reader.op in ops.CONVERTERS | ops.TYPE_BLIND:
                for position, tensor in enumerate(reader.inputs):
                    if tensor is output:
                        reader.inputs[position] = inner
        producer.outputs[index] = inner
        self._produced[inner.name] = produced
        self._tensors[inner.name] = inner
        node = self._cast_node(inner, output, "fp32")
        self._after[id(producer)].append(node)
        return inner

    def _cast(self, source: gs.Tensor, produced: str, kind: str) -> gs.Variable:
        """A tensor of another type; from a Cast's own source where there is one."""
        result = gs.Variable(
            self._names.fresh(f"{source.name}_{kind}"), NUMPY_TYPE[kind], source.shape
        )
        producer = source.inputs[0] if source.inputs else None
        if producer is not None and producer.op == "Cast":
            node = self._cast_node(producer.inputs[0], result, kind)
        else:
            node = self._cast_node(source, result, kind)
        if producer is None:
            self._first[id(self._home.get(source.name, self._graph))].append(node)
        else:
            self._after[id(producer)].append(node)
        return result

    def _cast_node(self, source: gs.Tensor, result: gs.Variable, kind: str) -> gs.Node:
        self._casts_added += 1
        name = self._names.fresh_node(f"{source.name}_Cast_{kind}")
        return gs.Node("Cast", name, {"to": FLOAT_NAMES[kind]}, [source], [result])

    def _insert_casts(self) -> None:
        for scope in self._scopes:
            nodes = list(self._first[id(scope)])
            for node in scope.nodes:
                nodes.append(node)
                nodes.extend(self._after.get(id(node), ()))
            scope.nodes.clear()
            scope.nodes.extend(nodes)

    def _drop_useless_casts(self, scope: gs.Graph) -> None:
        """Bypass Casts to the type that a tensor has, and all but the first of it to another type.

        Those that make an output of the graph stay.
        """
        outputs = {tensor.name for tensor in scope.outputs}
        made: dict[tuple[int, int], gs.Tensor] = {}
        for node in list(scope.nodes):
            if node.op != "Cast":
                continue
            source, result, kind = node.inputs[0], node.outputs[0], node.attrs["to"]
            same = source if self._element_type(source) == kind else None
            same = same if same is not None else made.setdefault((id(source), kind), result)
            if same is result or result.name in outputs:
                continue
            for reader in list(result.outputs):
                for position, tensor in enumerate(reader.inputs):
                    if tensor is result:
                        reader.inputs[position] = same
            node.outputs.clear()
            node.inputs.clear()
        scope.nodes[:] = [n for n in scope.nodes if n.op != "Cast" or n.outputs]


def _converted(
    values: npt.NDArray[np.generic], kind: str, *, clamp: bool
) -> npt.NDArray[np.generic]:
    if clamp:
        # A Clip bound beyond the range means "no bound"; the largest number says the same.
        values = np.clip(values, -FLOAT_MAX[kind], FLOAT_MAX[kind])
    with np.errstate(over="ignore"):  # what a force rule sends beyond the range
        return np.asarray(values.astype(NUMPY_TYPE[kind], order="C"))


def _replace(use: _Use, tensor: gs.Tensor) -> None:
    target = use.holder.outputs if isinstance(use.holder, gs.Graph) else use.holder.inputs
    target[use.index] = tensor
