"""Parts of a graph whose tensors may be stored with their axes in another order, and the price."""

from collections import Counter
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from trtforge.graph.cleanup.axis_rules import Form, Order, dropped_axes, moving_inputs, rewritten
from trtforge.graph.edit import Editor
from trtforge.graph.layout import composed, inverse, is_identity, order_of
from trtforge.graph.nodes import in_onnx_domain, is_standard
from trtforge.graph.pattern import rank_of

READERS_AT_MOST = 64
"""A tensor that more nodes read stays as it is, so that the price of a change is cheap to tell."""

_CONSTANT_BYTES = 1 << 20
"""A bigger constant is only stored anew when nobody else reads it."""

_FORBIDDEN = 1 << 30
"""More than any number of Transposes."""


class Scene:
    """One graph as a Transpose sees it: which nodes can work on another order of the axes."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._movable: dict[int, tuple[int, ...] | None] = {}

    def readers(self, tensor: gs.Tensor) -> list[gs.Node]:
        """Return the nodes that read a tensor, once per use; at most one more than are allowed."""
        return self.editor.users(tensor, READERS_AT_MOST + 1)

    def moving(self, node: gs.Node) -> tuple[int, ...] | None:
        """Return the inputs of a node that have the axes of its results; None if it must stay."""
        key = id(node)
        if key not in self._movable:
            self._movable[key] = self._looked_at(node)
        return self._movable[key]

    def _looked_at(self, node: gs.Node) -> tuple[int, ...] | None:
        if getattr(node, "owner", None) is not self.editor or not is_standard(node):
            return None
        ranks = {rank_of(self.editor, tensor) for tensor in node.outputs if tensor.name}
        rank = ranks.pop() if len(ranks) == 1 else None
        if rank is None or rank < 2:
            return None
        moving = moving_inputs(self.editor, node, rank)
        if moving is None or max(len(moving), len(node.outputs)) > READERS_AT_MOST:
            return None
        for tensor in (*(node.inputs[index] for index in moving), *node.outputs):
            if isinstance(tensor, gs.Constant):
                if len(tensor.shape) > rank:
                    return None
            elif tensor.name and not self._may_move(tensor, rank):
                return None
        return moving

    def _may_move(self, tensor: gs.Tensor, rank: int) -> bool:
        return rank_of(self.editor, tensor) == rank and len(self.readers(tensor)) <= READERS_AT_MOST

    def part_around(self, start: gs.Node, seen: set[int]) -> list[gs.Node]:
        """Return the movable nodes that hang together with one, and add them to `seen`."""
        found, waiting = [], [start]
        while waiting:
            node = waiting.pop()
            if id(node) in seen or self.moving(node) is None:
                continue
            seen.add(id(node))
            found.append(node)
            waiting.extend(self.neighbours(node))
        return sorted(found, key=lambda node: int(node.position))

    def neighbours(self, node: gs.Node) -> Iterator[gs.Node]:
        """Yield the nodes that share a tensor with a movable one, in which its axes are."""
        for index in self.moving(node) or ():
            tensor = node.inputs[index]
            if not isinstance(tensor, gs.Constant):
                producer = self.editor.producer(tensor)
                if producer is not None:
                    yield producer
                yield from self._moving_readers(tensor)
        for tensor in node.outputs:
            yield from self._moving_readers(tensor)

    def _moving_readers(self, tensor: gs.Tensor) -> Iterator[gs.Node]:
        for reader in self.readers(tensor):
            moving = self.moving(reader)
            if moving is not None and any(reader.inputs[index] is tensor for index in moving):
                yield reader


class Region:
    """Nodes that hang together, to be stored in one other order.

    Args:
        scene: of the graph.
        nodes: as `Scene.part_around` finds them.
        order: a tensor t of the region is stored as u with t = Transpose(u, order).
    """

    def __init__(self, scene: Scene, nodes: list[gs.Node], order: Order) -> None:
        self.scene, self.editor, self.order = scene, scene.editor, order
        self.forms: dict[int, Form] = {}
        for node in nodes:
            form = rewritten(self.editor, node, order)
            if form is not None:
                self.forms[id(node)] = form
        self.nodes = [node for node in nodes if id(node) in self.forms]

    def shrink(self) -> None:
        """Leave out every node without which the region costs no more."""
        waiting = list(self.nodes)
        queued = {id(node) for node in waiting}
        while waiting:
            node = waiting.pop()
            queued.discard(id(node))
            form = self.forms.get(id(node))
            if form is None:
                continue
            tensors = _distinct(self._tensors_of(node))
            cost = sum(map(self.price, tensors))
            del self.forms[id(node)]
            if sum(map(self.price, tensors)) > cost:
                self.forms[id(node)] = form
                continue
            for neighbour in self.scene.neighbours(node):
                if id(neighbour) in self.forms and id(neighbour) not in queued:
                    queued.add(id(neighbour))
                    waiting.append(neighbour)
        self.nodes = [node for node in self.nodes if id(node) in self.forms]

    def cost(self) -> int:
        """Return by how many Transposes the graph would grow."""
        tensors = [tensor for node in self.nodes for tensor in self._tensors_of(node)]
        return sum(map(self.price, _distinct(tensors)))

    def _tensors_of(self, node: gs.Node) -> list[gs.Tensor]:
        moving = self.forms[id(node)].tensors
        return [*(node.inputs[index] for index in moving), *node.outputs]

    def price(self, tensor: gs.Tensor) -> int:
        """Return by how many Transposes the graph would grow because of one tensor."""
        if isinstance(tensor, gs.Constant):
            return 0 if self._may_be_stored_anew(tensor) else _FORBIDDEN
        producer = self.editor.producer(tensor)
        readers = self.scene.readers(tensor)
        if producer is not None and id(producer) in self.forms:
            cancelled = len(self.cancelled(tensor, readers))
            return (1 if self.needs_restoring(tensor, readers) else 0) - cancelled
        if not any(self.reads_stored(reader, tensor) for reader in readers):
            return 0
        source = self.source_order(tensor)
        if source is None:
            return 1
        goes = not self.editor.is_kept(tensor) and all(
            self.reads_stored(reader, tensor) for reader in readers
        )
        return (0 if is_identity(source) else 1) - (1 if goes else 0)

    def _may_be_stored_anew(self, tensor: gs.Constant) -> bool:
        dtype, size = self.editor.dtype(tensor), 1
        for dim in tensor.shape:
            size *= int(dim)
        if dtype is not None and size * dtype.itemsize <= _CONSTANT_BYTES:
            return True
        return self.editor.is_private(tensor)

    def reads_stored(self, reader: gs.Node, tensor: gs.Tensor) -> bool:
        """Return whether a reader of a tensor would read only its stored form."""
        form = self.forms.get(id(reader))
        return form is not None and all(
            index in form.tensors for index, given in enumerate(reader.inputs) if given is tensor
        )

    def source_order(self, tensor: gs.Tensor) -> Order | None:
        """Return how the stored form comes from what a Transpose before it reads, if one is there.

        A Transpose of a tensor of the region itself does not count: that tensor may vanish.
        """
        transpose = self.editor.producer(tensor, "Transpose")
        if transpose is None:
            return None
        before = self.editor.producer(transpose.inputs[0])
        if before is not None and id(before) in self.forms:
            return None
        given = order_of(self.editor, transpose)
        return None if given is None else composed(given, inverse(self.order))

    def new_order(self, tensor: gs.Tensor, reader: gs.Node) -> Order | None:
        """Return the order of a Transpose of a tensor, when it reads the stored form."""
        if reader.owner is not self.editor or not in_onnx_domain(reader, "Transpose"):
            return None
        given = order_of(self.editor, reader)
        return None if given is None else composed(self.order, given)

    def cancelled(self, tensor: gs.Tensor, readers: list[gs.Node]) -> list[gs.Node]:
        """Return the Transposes of a tensor whose results are its stored form, an output first.

        Two outputs of the graph cannot be one tensor: the second stays.
        """
        found = []
        for reader in readers:
            order = self.new_order(tensor, reader)
            if order is not None and is_identity(order):
                found.append(reader)
        kept = [reader for reader in found if self.editor.is_kept(reader.outputs[0])]
        others = [reader for reader in found if not self.editor.is_kept(reader.outputs[0])]
        return kept[:1] + others

    def needs_restoring(self, tensor: gs.Tensor, readers: list[gs.Node]) -> bool:
        """Return whether somebody reads a tensor of the region as it was."""
        return self.editor.is_kept(tensor) or any(
            not self.reads_stored(reader, tensor)
            and self.new_order(tensor, reader) is None
            and self.dropped(reader, tensor) is None
            for reader in readers
        )

    def dropped(self, reader: gs.Node, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """Return the stored axes that a reader reduces away, when it may read the stored form."""
        if reader.owner is not self.editor or reader.inputs[0] is not tensor:
            return None
        return dropped_axes(self.editor, reader, self.order)


def candidates(scene: Scene, nodes: list[gs.Node], at_most: int = 2) -> list[Order]:
    """Return the orders that the Transposes around some nodes ask for, the most wanted first."""
    editor, wanted = scene.editor, Counter[Order]()
    for node in nodes:
        for index in scene.moving(node) or ():
            transpose = editor.producer(node.inputs[index], "Transpose")
            order = None if transpose is None else order_of(editor, transpose)
            if order is not None:
                wanted[order] += 1
        for tensor in node.outputs:
            for reader in scene.readers(tensor):
                if reader.owner is editor and in_onnx_domain(reader, "Transpose"):
                    order = order_of(editor, reader)
                    if order is not None:
                        wanted[inverse(order)] += 1
    rank = len(editor.dims(nodes[0].outputs[0]) or ())
    orders = [order for order, _ in wanted.most_common() if not is_identity(order)]
    return [order for order in orders if len(order) == rank][:at_most]


def _distinct(tensors: list[gs.Tensor]) -> list[gs.Tensor]:
    return list({id(tensor): tensor for tensor in tensors if tensor.name}.values())
