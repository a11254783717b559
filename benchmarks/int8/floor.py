"""floor.py MODEL DATA SAMPLES: what calibration costs at least.

One pass of ONNX Runtime over the samples, in which the graph reduces every activation that touches
a weighted or joining operator to its minimum and maximum.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import onnx
import onnxruntime
from onnx import helper
from samples import feeds

_WEIGHTED = frozenset(["Conv", "Gemm", "MatMul"])
_JOINING = frozenset(["ConvTranspose", "Add", "Sum", "Mul", "Concat"])
_POOLING = frozenset(["AveragePool", "GlobalAveragePool", "MaxPool"])
_TOUCHED = _WEIGHTED | _JOINING | _POOLING


def main() -> None:
    """Run the samples once."""
    path, data, samples = sys.argv[1:4]
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for n in graph.node if n.op_type == "Constant" for name in n.output}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _TOUCHED:
            outputs = node.output if node.op_type in _WEIGHTED else ()
            for name in (*node.input, *outputs):
                if name not in constants and kinds.get(name) == onnx.TensorProto.FLOAT:
                    found[name] = None
    for index, name in enumerate(found):
        for op in ("ReduceMin", "ReduceMax"):
            output = f"_{op}_{index}"
            graph.node.append(helper.make_node(op, [name], [output], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    for sample in feeds(data, names, int(samples)):
        session.run(None, sample)


if __name__ == "__main__":
    main()
