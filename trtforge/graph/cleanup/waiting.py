"""Whether a fusion still waits for a newer operator set."""

from trtforge.graph.edit import Editor


def is_to_be_raised(editor: Editor) -> bool:
    """Return whether a pass of this round asked for an operator set that the limit allows.

    A pass that would spell a fusion's pattern otherwise waits until the model is raised. Where
    raising turns out to be impossible it waits for good: the pattern stays as the user wrote it.
    """
    return any(version <= editor.opset_limit for version in editor.wanted_opsets)
