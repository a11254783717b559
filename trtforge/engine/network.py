"""From an ONNX file to a network that the builder can take, or a message that says why not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtforge.engine.backend import ProfileShapes, ValueTriple
from trtforge.engine.layers import tensor_facts
from trtforge.engine.profiles import profile_problems
from trtforge.engine.remedies import PARSER_REMEDIES, explain, one_line
from trtforge.errors import BuildError, Place

_MOST_PROBLEMS = 20


def network_flags(trt: Any) -> int:
    """Flags for `create_network` that make the network strongly typed.

    TensorRT 10 makes weakly typed networks unless told otherwise; 11 and TensorRT-RTX know no
    others and ignore the flag. It is looked up by name: its number is not the same in both.
    """
    if trt.__name__ != "tensorrt" or int(trt.__version__.split(".")[0]) > 10:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def parse(trt: Any, network: Any, logger: Any, model: Path) -> Any:
    """Parse `model` into `network`; the parser returned must live as long as the network.

    Raises:
        BuildError: the parser refuses; names the node, its operator, the reason and a remedy. Or
            the model has no outputs, which the parser takes without a word; or it is gone.
    """
    if not model.is_file():
        raise BuildError(
            "TF0604",
            f"{model.name} is no longer there",
            hint="run `trtforge build` again: it makes anew what `trtforge cache prune` removed",
            where=Place(file=str(model)),
        )
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _parse_error(trt, model, errors)
    if network.num_outputs == 0:
        raise BuildError(
            "TF0604",
            f"{model.name} has no outputs: it is empty or no ONNX model",
            hint="check it with onnx.checker",
            where=Place(file=model.name),
        )
    return parser


def _parse_error(trt: Any, model: Path, errors: Sequence[Any]) -> BuildError:
    file = model.name
    if not errors:
        return BuildError(
            "TF0604",
            f"{trt.__name__} cannot parse {file}, and does not say why",
            "export it again, or with another opset",
            Place(file=file),
        )
    first = errors[0]
    said = [_line(error) for error in errors[:_MOST_PROBLEMS]]
    reason, hint = explain(first.desc(), PARSER_REMEDIES)
    node = _node(first) if first.node_name() else _unnamed_node(model, first)
    subject = f"{first.node_operator()} node {node}" if first.node() >= 0 else "the graph"
    return BuildError(
        "TF0604",
        f"{trt.__name__} {trt.__version__} cannot take {subject}: {reason} ({first.code().name})",
        hint=hint or f"rewrite it with operators that {trt.__name__} supports",
        where=Place(file=file, node=first.node_name() or None),
        details=None if len(said) == 1 and reason in one_line(said[0]) else "\n".join(said),
    )


def _unnamed_node(model: Path, error: Any) -> str:
    """Tell a node without a name by its first output; the parser only counts nodes."""
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    index = error.node()
    if index >= len(nodes) or nodes[index].op_type != error.node_operator():
        return _node(error)  # it lies in a subgraph or a function
    return f"that makes '{next(filter(None, nodes[index].output), '')}'"


def _node(error: Any) -> str:
    return f"'{error.node_name()}'" if error.node_name() else f"number {error.node()}"


def _line(error: Any) -> str:
    inside = "".join(f" in {frame}" for frame in error.local_function_stack())
    operator = f" [{error.node_operator()}]" if error.node_operator() else ""
    place = f"node {_node(error)}" if error.node() >= 0 else "the graph"
    return f"{error.code().name}: {place}{operator}{inside}: {error.desc().strip()}"


def check_interface(
    network: Any, inputs: Mapping[str, str], outputs: Mapping[str, str], file: str
) -> None:
    """Hold the network's inputs and outputs against the model's, which the bundle promises.

    The parser renames an input that is an output too, and takes FP64 for FP32, both silently.

    Args:
        network: the parsed network.
        inputs: the model's inputs, name -> dtype; empty when not known.
        outputs: the model's outputs, likewise.
        file: the model's name, for messages.

    Raises:
        BuildError: the engine would have another interface than the model.
    """
    if both := [name for name in outputs if name in inputs]:
        raise BuildError(
            "TF0617",
            f"output '{both[0]}' is the input of that name itself, which an engine cannot have",
            hint="remove that output, or give it a name of its own by an Identity node",
            where=Place(file=file, node=both[0]),
        )
    sides = (
        ("input", inputs, [network.get_input(index) for index in range(network.num_inputs)]),
        ("output", outputs, [network.get_output(index) for index in range(network.num_outputs)]),
    )
    for side, wanted, tensors in sides:
        built = {facts["name"]: facts["dtype"] for facts in map(tensor_facts, tensors)}
        for name, dtype in wanted.items():
            if built.get(name) != dtype:
                raise _other_interface(side, name, dtype, built.get(name), file)


def _other_interface(side: str, name: str, dtype: str, built: str | None, file: str) -> BuildError:
    becomes = "has no such tensor" if built is None else f"takes it as {built}"
    way = "from" if side == "output" else "to"
    return BuildError(
        "TF0617",
        f"{side} '{name}' is {dtype}, but the engine {becomes}",
        hint=f"declare it as a type that TensorRT has, with a Cast {way} {dtype} inside the model"
        if built is not None
        else f"remove the {side} from the model: nothing in it depends on it",
        where=Place(file=file, node=name),
    )


def check_profiles(network: Any, profiles: ProfileShapes, file: str) -> None:
    """Hold the profiles against the network's inputs.

    Raises:
        BuildError: they do not fit.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    deciding = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    known = {tensor.name: tuple(tensor_facts(tensor)["shape"] or ()) for tensor in inputs}
    if problems := profile_problems(known, profiles, deciding):
        lacking = [f"'{name}'" for name in deciding if _lacks_values(profiles, name)]
        raise BuildError(
            "TF0605",
            problems[0],
            hint="correct `shapes` in the recipe"
            if not lacking
            else f"give {lacking[0]} min, opt and max of its values and `values: true` under "
            "`shapes` in the recipe, or make it a constant of the model",
            where=Place(file=file),
            details="\n".join(problems),
        )


def _lacks_values(profiles: ProfileShapes, name: str) -> bool:
    return not profiles or not all(isinstance(one.get(name), ValueTriple) for one in profiles)


def set_shapes(network: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give the network's inputs concrete shapes; the library then infers those of all results."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name in shapes:
            tensor.shape = tuple(shapes[tensor.name])


_PROFILE = "give every dynamic input of the model min <= opt <= max in it"


def add_profiles(builder: Any, config: Any, profiles: ProfileShapes) -> None:
    """Put the profiles into the builder's configuration.

    Raises:
        BuildError: the library refuses one.
    """
    for index, shapes in enumerate(profiles):
        profile = builder.create_optimization_profile()
        try:
            for name, triple in shapes.items():
                if isinstance(triple, ValueTriple):
                    profile.set_shape_input(name, *triple)
                else:
                    profile.set_shape(name, *triple)
            taken = config.add_optimization_profile(profile) == index
        except (ValueError, TypeError, RuntimeError) as error:
            raise BuildError(
                "TF0605", f"optimization profile {index}: {error}", _PROFILE
            ) from error
        if not taken:
            raise BuildError(
                "TF0605", f"the builder refuses optimization profile {index}", _PROFILE
            )


def make_attention_decomposable(trt: Any, network: Any) -> int:
    """Let Attention be built from smaller operators where no kernel is; returns how many.

    There are fused kernels for FP16 and BF16 and for common head sizes alone; on FP32, and on
    masked heads of 8 or 320, the builder fails unless it may decompose (TensorRT documentation,
    "Working with Transformers", multi-head attention fusion). Where a kernel is, the engine of
    TensorRT-RTX 1.7 is the same byte for byte with the mark and without.
    """
    changed = 0
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for index in range(network.num_layers if kind is not None else 0):
        layer = network.get_layer(index)
        if layer.type != kind:
            continue
        layer.__class__ = trt.IAttentionInputLayer  # the bindings hand out the base class
        layer.attention.decomposable = True
        changed += 1
    return changed
