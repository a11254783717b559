"""Finds every use of NVIDIA's API in source code, and what might be one and cannot be told.

A use is an attribute of a variable that holds an object of the API. Which variables do is told by
their names; those that hold one by what is assigned to them, or that may as their type is `Any`,
must be among these names, so that no use is overlooked.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_PYTHONS = {name for kind in (str, bytes, int, list, dict, tuple, set) for name in dir(kind)} | {
    "name",
    "value",
    "dtype",
    "__members__",
}
"""Attributes of what the API returns where that is Python's own, an enumeration's or an array."""

_LOOKUPS = ("getattr", "hasattr", "setattr")


@dataclass
class Uses:
    """What was found.

    Attributes:
        members: (class, or "" for the module; member).
        compared: texts that the name of a member is compared with.
        looked_up: functions that look members up by names that are not written there.
        unknown: uses of what may be an object of the API and is not called as one.
    """

    members: set[tuple[str, str]] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def uses(source: str, variables: Mapping[str, str]) -> Uses:
    """Find the uses in a module's source; `variables` says which name holds which class."""
    found = Uses()
    scans = [_Scan(one, variables, found) for one in _functions(ast.parse(source))]
    kept = {name for scan in scans for name in scan.suspects if name.startswith("self.")}
    for scan in scans:
        scan.suspects |= kept
        scan.all()
    return found


def holds_api(source: str, variables: Mapping[str, str]) -> bool:
    """Whether a module gets hold of the API: by its module, what loads that, or a parameter."""
    tree = ast.parse(source)
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
    if names & {"trt", "load_engine", "load_module"}:
        return True
    return any(_of_any_type(one) & set(variables) for one in _functions(tree))


def constants(source: str) -> set[str]:
    """All texts that are written in a module."""
    nodes = ast.walk(ast.parse(source))
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The module's own statements, and each function with those around it left out."""
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def _of_any_type(function: ast.AST) -> set[str]:
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    args = function.args
    return {
        one.arg
        for one in (*args.posonlyargs, *args.args, *args.kwonlyargs)
        if isinstance(one.annotation, ast.Name) and one.annotation.id == "Any"
    }


def _held_as(node: ast.AST) -> str | None:
    """A variable, or an attribute of `self`, as text."""
    if isinstance(node, ast.Name):
        return node.id
    is_own = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    return ast.unparse(node) if is_own else None


class _Scan:
    """One function."""

    def __init__(self, function: ast.AST, variables: Mapping[str, str], found: Uses) -> None:
        self._function = function
        self._variables = variables
        self._found = found
        self.suspects = _of_any_type(function)
        for _ in range(3):  # what is assigned from what is assigned
            self.suspects |= set(self._assigned())

    def all(self) -> None:
        for node in self._own():
            if isinstance(node, ast.Attribute):
                self._attribute(node)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _LOOKUPS:
                self._lookup(node)
            elif isinstance(node, ast.Compare):
                self._comparison(node)

    def _own(self) -> Iterator[ast.AST]:
        waiting = list(ast.iter_child_nodes(self._function))
        while waiting:
            node = waiting.pop()
            yield node
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting += ast.iter_child_nodes(node)

    def _assigned(self) -> Iterator[str]:
        for node in self._own():
            pairs: list[tuple[ast.AST, ast.AST | None]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                pairs = [(node.target, node.value)]
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                pairs = [(node.optional_vars, node.context_expr)]
            elif isinstance(node, ast.For | ast.comprehension):
                pairs = [(node.target, node.iter)]
            for target, value in pairs:
                if value is None or not self._is_api(value):
                    continue
                parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
                yield from filter(None, map(_held_as, parts))

    def _kind(self, node: ast.AST) -> str | None:
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        return None if name is None else self._variables.get(name.lstrip("_"))

    def _is_api(self, node: ast.AST) -> bool:
        """Whether an expression begins with an object of the API."""
        if self._kind(node) is not None:
            return True
        if _held_as(node) in self.suspects:
            return True
        if isinstance(node, ast.Call):
            is_lookup = getattr(node.func, "id", "") in (*_LOOKUPS, "type")
            return self._is_api(node.args[0] if is_lookup else node.func)
        if isinstance(node, ast.Attribute | ast.Subscript):
            return self._is_api(node.value)
        return False

    def _attribute(self, node: ast.Attribute) -> None:
        kind = self._kind(node.value)
        if kind is not None:
            self._found.members.add((kind, node.attr))
        elif self._is_api(node.value) and node.attr not in _PYTHONS:
            self._found.unknown.add(ast.unparse(node))

    def _comparison(self, node: ast.Compare) -> None:
        left = node.left
        if isinstance(left, ast.Attribute) and left.attr == "name" and self._is_api(left.value):
            texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
            self._found.compared |= {text for text in texts if isinstance(text, str)}

    def _lookup(self, node: ast.Call) -> None:
        held, name = node.args[0], node.args[1]
        if isinstance(held, ast.Call) and getattr(held.func, "id", "") == "type":
            held = held.args[0]
        if not self._is_api(held):
            return
        kind = self._kind(held)
        if isinstance(name, ast.Constant) and kind is not None:
            self._found.members.add((kind, name.value))
        else:
            self._found.looked_up.add(getattr(self._function, "name", "<module>"))
