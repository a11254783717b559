"""Operator sets that no node uses are not imported."""

from trtforge.graph.dialect import all_nodes
from trtforge.graph.edit import Editor


class RemoveUnusedImports:
    """Remove imports of operator sets.

    Matches: an import of a domain, other than the standard one, of which there is no node in the
    model, bodies included (https://onnx.ai/onnx/repo-docs/IR.html#operator-sets).
    Rewrites to: a model without the import.
    Refuses when: the model has local functions, which may use it.

    Any opset.
    """

    name = "unused-imports"

    def apply(self, editor: Editor) -> None:
        """Rewrite the outermost graph in place."""
        graph = editor.graph
        imports = list(graph.import_domains or ())
        if not editor.is_outermost or len(imports) < 2 or graph.functions:
            return
        used = {"", "ai.onnx", *(node.domain or "" for node in all_nodes(graph))}
        graph.import_domains = [one for one in imports if one.domain in used]
        for one in imports:
            if one.domain not in used:
                editor.match(one.domain, "no node is of this operator set")
