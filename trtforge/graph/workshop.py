"""A model opened for editing: its graphs, what is known about them, and passes applied to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.errors import GraphError
from trtforge.graph import shapes
from trtforge.graph.catalog import NEEDS, PASSES
from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims, Facts
from trtforge.graph.fresh_names import Names
from trtforge.graph.model import Model
from trtforge.graph.nodes import bodies, constant_bytes
from trtforge.graph.report import Note, PassResult

Known = Mapping[str, tuple["np.dtype[Any] | None", Dims | None]]
"""Types and (symbolic) dimensions of a model's tensors, by name."""


@runtime_checkable
class Pass(Protocol):
    """One kind of rewrite; free of state, so that any prefix of a run can be repeated."""

    name: str

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph (the outermost or a body) in place, saying what was done."""
        ...


class ModelPass(Protocol):
    """A rewrite of a model as a whole, which is opened again afterwards."""

    name: str

    def concerns(self, model: Model) -> bool:
        """Return whether there may be something to do; cheap, and true of any later version."""
        ...

    def apply_model(self, model: Model) -> tuple[Model, PassResult]:
        """Return the rewritten model, or the model itself and no rewrites."""
        ...


class FaultyPassError(Exception):
    """A pass failed or told an untruth about itself."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class Applied:
    """What one application of a pass did, and what it cost.

    Attributes:
        result: rewrites and notes.
        nodes: by how much the number of nodes grew, bodies included; mostly negative.
        bytes: by how much the constants that nodes read grew.
        seconds: wall time.
    """

    result: PassResult
    nodes: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Workshop:
    """A model on the bench.

    Args:
        model: the original; unchanged.
        opset_limit: the newest operator set that passes may ask for.
    """

    def __init__(self, model: Model, opset_limit: int) -> None:
        self._limit = opset_limit
        self._passes: dict[str, tuple[Pass | None, ModelPass | None]] = {}
        self._opened: list[Editor] = []
        self._open(model)

    def _open(self, model: Model) -> None:
        self.close()
        self._model = model
        self._graph = model.to_graph()
        self._facts = Facts.of(self._graph, model.proto, model.files)
        self._names = Names(self._graph)
        self._root = self._editor(self._graph)
        self._opened = [self._root, *self._inner_editors()]
        self._is_edited = False
        self._bytes = self._constant_bytes()

    def _editor(self, graph: gs.Graph) -> Editor:
        editor = Editor(graph, self._facts, self._names, self._limit)
        editor.is_outermost = graph is self._graph
        return editor

    def _inner_editors(self) -> list[Editor]:
        found = (body for node in self._root.nodes_with_bodies() for body in bodies(node))
        return [self._editor(body) for body in found]

    def _editors(self) -> list[Editor]:
        return self._opened

    def close(self) -> None:
        """Let go of weights and messages at once.

        Nodes and tensors refer to each other: until the collector comes they would hold them.
        """
        for editor in self._editors():
            editor.graph.origin = None
            for node in editor.graph.nodes:
                node.source = None
                for tensor in node.inputs:
                    if isinstance(tensor, gs.Constant):
                        tensor._values = None

    @property
    def limit(self) -> int:
        """The newest operator set that passes may ask for."""
        return self._limit

    @limit.setter
    def limit(self, version: int) -> None:
        self._limit = version
        for editor in self._editors():
            editor.opset_limit = version

    def begin_round(self) -> None:
        """Learn what can be known about all tensors as they are now."""
        for editor in self._editors():
            editor.wanted_opsets.clear()
            shapes.walk(editor)

    def apply(self, name: str) -> Applied:
        """Apply a pass to the outermost graph and to every body.

        Raises:
            FaultyPassError: it failed, or changed a graph without saying so.
        """
        if name in NEEDS and not any(editor.has(NEEDS[name].split()) for editor in self._editors()):
            return Applied(PassResult(0))
        start, nodes = perf_counter(), self._node_count()
        try:
            result = self._run(name)
        except FaultyPassError:
            raise
        except Exception as error:  # a fault in one pass must not cost the user the build
            raise FaultyPassError(name, f"it failed: {type(error).__name__}: {error}") from error
        seconds = perf_counter() - start
        if not result.rewrites:
            return Applied(result, seconds=seconds)
        before, self._bytes = self._bytes, self._constant_bytes()
        return Applied(result, self._node_count() - nodes, self._bytes - before, seconds)

    def _run(self, name: str) -> PassResult:
        if name not in self._passes:
            made = pass_named(name)
            # Asked once: to ask whether a class has the members of a protocol is slow.
            self._passes[name] = (made, None) if isinstance(made, Pass) else (None, made)
        one, of_model = self._passes[name]
        if one is not None:
            return self._apply_to_graphs(one)
        assert of_model is not None
        return self._apply_to_model(of_model)

    def _apply_to_model(self, made: ModelPass) -> PassResult:
        if not made.concerns(self._model):
            return PassResult(0)
        model = self.model()
        changed, result = made.apply_model(model)
        if changed is not model:
            self._open(changed)
            self.begin_round()
        return result

    def _apply_to_graphs(self, made: Pass) -> PassResult:
        rewrites, notes = 0, list[Note]()
        for editor in self._editors():
            editor.begin()
            editor.current_pass = made.name
            made.apply(editor)
            result = editor.finish()
            if editor.touched and not result.rewrites:
                reason = "it changed the graph and reported no rewrite"
                raise FaultyPassError(made.name, reason)
            rewrites += result.rewrites
            notes.extend(result.notes)
        if rewrites:
            self._is_edited = True
            self._renew_inner()
        return PassResult(rewrites, tuple(notes))

    def _renew_inner(self) -> None:
        if any(editor.bodies_changed for editor in self._editors()):
            self._root.bodies_changed = False
            wanted = [editor.wanted_opsets for editor in self._opened[1:]]
            self._opened = [self._root, *self._inner_editors()]
            for opsets in wanted:
                for version, places in opsets.items():
                    self._root.wanted_opsets.setdefault(version, []).extend(places)

    def _constant_bytes(self) -> int:
        constants = {
            id(tensor): tensor
            for editor in self._editors()
            for node in editor.graph.nodes
            for tensor in node.inputs
            if isinstance(tensor, gs.Constant)
        }
        return sum(map(constant_bytes, constants.values()))

    def _node_count(self) -> int:
        return sum(len(editor.graph.nodes) for editor in self._editors())

    def wanted_opsets(self) -> dict[int, list[tuple[str, str]]]:
        """Return opset -> (pass, node) of the places that need it, from this round."""
        wanted: dict[int, list[tuple[str, str]]] = {}
        for editor in self._editors():
            for version, places in editor.wanted_opsets.items():
                wanted.setdefault(version, []).extend(places)
        return wanted

    def raise_opset(self, version: int) -> None:
        """Bring the whole model to a newer operator set.

        Raises:
            GraphError: TF0407, an operator of the model cannot be raised; nothing has changed.
        """
        raised = self.model().with_opset(version)
        self._open(raised)

    def reopen(self) -> bool:
        """Open the edited model anew, for facts that follow from what it has become.

        Returns:
            False when there is nothing to learn: it was not edited, or all is known already.
        """
        if not self._is_edited or all(map(_is_fully_known, self._editors())):
            return False
        self._open(self.model())
        return True

    def known(self) -> Known:
        """Return what is known about the tensors that the outermost graph computes."""
        root = self._root
        return {
            tensor.name: (root.dtype(tensor), root.dims(tensor))
            for node in root.nodes()
            for tensor in node.outputs
            if tensor.name
        }

    def model(self) -> Model:
        """Return the model as it is now; the original itself when nothing was edited."""
        return self._model.with_graph(self._graph) if self._is_edited else self._model


def _is_fully_known(editor: Editor) -> bool:
    for node in editor.nodes():
        for tensor in node.outputs:
            dims = editor.dims(tensor)
            if dims is None or not all(isinstance(dim, int) for dim in dims):
                return False
    return True


def pass_named(name: str) -> Pass | ModelPass:
    """Import and make one pass of the table."""
    module, _, attribute = PASSES[name].partition(":")
    made: Pass | ModelPass = getattr(import_module(module), attribute)()
    return made


def try_raise(workshop: Workshop, version: int) -> str | None:
    """Raise the opset; return None when done, otherwise why it cannot be."""
    try:
        workshop.raise_opset(version)
    except GraphError as error:
        return error.message
    return None
