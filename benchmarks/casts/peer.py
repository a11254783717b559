"""peer.py onnxconverter-common|'onnxruntime float16' MODEL OUT: a peer's own way to FP16."""

import sys

import onnx

if __name__ == "__main__":
    tool, source, target = sys.argv[1:4]
    if tool == "onnxconverter-common":
        from onnxconverter_common.float16 import convert_float_to_float16
    else:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
