"""Polygraphy's options that no key of a recipe takes, and why.

Source: `polygraphy convert --help` and `polygraphy run --help` of 0.53, and options that they had
since 0.30. A test holds the tables against the parsers of the installed version.
"""

from trtforge.recipe.migration.precision import SIMPLE

ENGINE = "the engine is engines/<target>/model.engine in the bundle that is built"
_MEASURED = "random inputs follow the model's contract; give verify.data for others"
_LOGS = "it says what is logged: use `trtforge build -v` or -q"
_ONNX = "no ONNX file is written"
_INFERENCE = "it says how polygraphy runs an engine, not what is built"
_TYPES = "here types always are as the graph says"
_TENSORS = "`trtforge verify --layers` compares every tensor of two graphs"
_VERIFIES = "`trtforge verify` compares with the original itself, and says how outputs differ"
_DLA = "there is no DLA here"
_SCRIPT = "a recipe is data: say in targets[].options what the script sets"
_TENSORFLOW = "models are ONNX: export it with tf2onnx"
_IO = "put a Cast or Transpose into the model, or set precision.io_types: convert"
_DEBUG = "debug tensors are not part of a build; `trtforge debug` compares all tensors"
_EXTERNAL = "external data is looked for beside the model: put it there"

SKIPPED: dict[str, str] = {
    **dict.fromkeys(("-v", "--verbose", "-vv", "-vvv"), "use `trtforge build -v`"),
    **dict.fromkeys(("-q", "--quiet", "-qq", "--silent"), "use `trtforge build -q`"),
    **dict.fromkeys(("--verbosity", "--log-format", "--log-file"), _LOGS),
    **dict.fromkeys(("-h", "--help"), "it shows polygraphy's help"),
    "--save-engine": ENGINE,
    **dict.fromkeys(
        (
            *("--save-external-data", "--external-data-path", "--external-data-size-threshold"),
            *("--no-save-all-tensors-to-one-file", "--ext", "--opset"),
        ),
        _ONNX,
    ),
    **dict.fromkeys(
        (
            *("--allocation-strategy", "--optimization-profile", "--use-subprocess"),
            *("--sequential-runners", "--warm-up", "--weight-streaming-budget", "--load-runtime"),
            *("--providers", "--execution-providers", "--graph-optimization-level", "--iters"),
            *("--data-loader-backend-module", "--iterations"),
        ),
        _INFERENCE,
    ),
    **dict.fromkeys(
        (
            *("--calib-base-cls", "--calibration-base-class", "--quantile", "--regression-cutoff"),
            "--quantization-flags",
        ),
        "calibrators were removed in TensorRT 11; see calibration.method",
    ),
    "--model-type": "models are ONNX",
    **dict.fromkeys(("--strongly-typed", "--explicit-batch"), "always so"),
    "--precision-constraints": f"removed in TensorRT 11; {_TYPES}",
    "--obey-precision-constraints": _TYPES,
    "--check-error-stat": "bounds are on the largest error, SQNR and cosine: verify.tolerance",
    "--check-average": "bounds hold for all cases together",
    "--fail-fast": "every output is judged",
    "--compare": "every comparison is made; verify.tolerance says which must hold",
    "--compare-func": "every comparison is made; verify.tolerance says which must hold",
    "--infinities-compare-equal": "infinities of one sign are the same",
    "--profiling-verbosity": "set targets[].options.profiling",
    "--disable-compilation-cache": "it changes no engine",
    **dict.fromkeys(
        ("--shape-inference", "--do-shape-inference", "--no-onnxruntime-shape-inference"),
        "done in every build",
    ),
    **dict.fromkeys(
        ("--int-min", "--int-max", "--float-min", "--float-max", "--val-range"), _MEASURED
    ),
    "--decomposable-attentions": "attention is made decomposable wherever that lets it build",
    "--onnx-flags": "the parser's flags are chosen for each version",
}
"""Option -> why it needs no counterpart."""

REFUSED: dict[str, str] = {
    "--tactic-sources": "CUBLAS, CUBLAS_LT and CUDNN were removed in TensorRT 11",
    "--preview-features": "they change from version to version and are left to the library",
    **dict.fromkeys(
        ("--save-tactics", "--load-tactics", "--save-tactic-replay", "--load-tactic-replay"),
        "tactic replay was removed in TensorRT 11: set targets[].options.timing_cache: require",
    ),
    **dict.fromkeys(
        (
            *("--trt-outputs", "--onnx-outputs", "--trt-exclude-outputs", "--onnx-exclude-outputs"),
            *("--trt-outputs-by-type", "--onnx-outputs-by-type"),
        ),
        _TENSORS,
    ),
    **dict.fromkeys(
        ("--load-inputs", "--load-input-data"),
        "write the inputs as .npz, and name it in verify.data",
    ),
    "--data-loader-func-name": "name it in calibration.data: script.py:function",
    **dict.fromkeys(
        (
            *("--load-outputs", "--load-results", "--save-outputs", "--save-results"),
            *("--save-inputs", "--save-input-data", "--save-input-blob", "--save-accuracy-results"),
            *("--save-heatmaps", "--show-heatmaps", "--save-error-metrics-plot"),
            *("--show-error-metrics-plot", "--pluginref", "--gen", "--gen-script"),
        ),
        _VERIFIES,
    ),
    "--compare-func-script": "name it in precision.budget.metric, or use verify.tolerance",
    **dict.fromkeys(
        ("--postprocess", "--postprocess-func", "--postprocess-func-script"),
        "give verify.tolerance.top1_agreement or top5_agreement for class outputs",
    ),
    **dict.fromkeys(
        (
            *("--l2-threshold", "--l2-tolerance", "--psnr-threshold", "--psnr-tolerance"),
            *("--lpips-threshold", "--lpips-tolerance", "--index-tolerance", "--error-quantile"),
            "--no-shape-check",
        ),
        "no such bound here: use sqnr_db, cosine, max_abs, max_rel or top1_agreement",
    ),
    **dict.fromkeys(
        (
            *("--use-dla", "--allow-gpu-fallback", "--dla-workspace-allocation-strategy"),
            "--enable-uint8-asymmetric-quantization-dla",
        ),
        _DLA,
    ),
    "--plugins": "TensorRT plugins cannot be named in a recipe",
    "--plugin-instancenorm": "TensorRT plugins cannot be named in a recipe",
    **dict.fromkeys(
        ("--trt-config-script", "--trt-config-postprocess-script", "--trt-cpps"), _SCRIPT
    ),
    **dict.fromkeys(
        ("--trt-network-script", "--trt-network-postprocess-script", "--trt-npps"),
        "a recipe is data: change the model",
    ),
    "--validate": "NaN and infinity always fail a comparison",
    **dict.fromkeys(
        ("--restricted", "--trt-safety-restricted", "--engine-capability"),
        "the safety builder is not part of trtforge",
    ),
    "--layer-output-types": "removed in TensorRT 11; use keep rules of `precision`",
    **dict.fromkeys(
        (
            *("--tensor-dtypes", "--tensor-datatypes", "--all-tensor-dtypes", "--tensor-formats"),
            *("--all-tensor-datatypes", "--all-tensor-formats", "--direct-io"),
        ),
        _IO,
    ),
    **dict.fromkeys(
        ("--external-data-dir", "--load-external-data", "--ignore-external-data"), _EXTERNAL
    ),
    "--fp-to-fp16": "it converts the ONNX file: `trtforge cast` does that, or precision.type: fp16",
    **dict.fromkeys(("--mark-debug", "--mark-unfused-tensors-as-debug-tensors"), _DEBUG),
    **dict.fromkeys(
        (
            *(
                "--tf",
                "--tftrt",
                "--use-tftrt",
                "--tf-outputs",
                "--ckpt",
                "--freeze-graph",
                "--xla",
            ),
            *("--allow-growth", "--gpu-memory-fraction", "--minimum-segment-size", "--dynamic-op"),
            *("--save-pb", "--save-tensorboard", "--save-timeline", "--save-onnx"),
        ),
        _TENSORFLOW,
    ),
}
"""Option -> why nothing does it, and what to use instead."""

WITHOUT_VALUE = frozenset(
    {
        *SIMPLE,
        *("--tf32", "--trt", "--onnxrt", "--version-compatible", "--exclude-lean-runtime"),
        *("--sparse-weights", "--refittable", "--strip-plan", "--weight-streaming", "--validate"),
        *("--error-on-timing-cache-miss", "--strongly-typed", "--explicit-batch", "-v", "-vv"),
        *("-vvv", "--verbose", "--obey-precision-constraints", "--fail-fast", "--silent", "-q"),
        *("-qq", "--quiet", "--use-dla", "--allow-gpu-fallback", "--disable-compilation-cache"),
        *("--restricted", "--trt-safety-restricted", "--shape-inference", "--do-shape-inference"),
        *("--no-onnxruntime-shape-inference", "--no-save-all-tensors-to-one-file", "--direct-io"),
        *("--decomposable-attentions", "--plugin-instancenorm", "--fp-to-fp16", "--freeze-graph"),
        *("--mark-unfused-tensors-as-debug-tensors", "--ignore-external-data", "--check-average"),
        *(
            "--enable-uint8-asymmetric-quantization-dla",
            "--infinities-compare-equal",
            "--pluginref",
        ),
        *("--no-shape-check", "--use-subprocess", "--sequential-runners", "--show-heatmaps"),
        *("--show-error-metrics-plot", "--tf", "--tftrt", "--use-tftrt", "--xla", "--dynamic-op"),
        *("--allow-growth", "-h", "--help"),
    }
)
WITH_ONE_VALUE = frozenset(
    {
        *(
            "-o",
            "--output",
            "--save-engine",
            "--convert-to",
            "--model-type",
            "--seed",
            "--log-file",
        ),
        *("--calibration-cache", "--data-loader-script", "--builder-optimization-level"),
        *("--hardware-compatibility-level", "--load-timing-cache", "--save-timing-cache"),
        *("--precision-constraints", "--profiling-verbosity", "--iterations", "--iters"),
        *("--calib-base-cls", "--calibration-base-class", "--quantile", "--regression-cutoff"),
        *("--int-min", "--int-max", "--float-min", "--float-max", "--trt-config-script"),
        *("--trt-network-script", "--data-loader-func-name", "--max-aux-streams", "--warm-up"),
        *("--trt-config-postprocess-script", "--trt-cpps", "--runtime-platform", "--opset"),
        *("--tiling-optimization-level", "--engine-capability", "--all-tensor-dtypes"),
        *("--all-tensor-datatypes", "--external-data-dir", "--load-external-data", "--ext"),
        *("--external-data-path", "--save-external-data", "--external-data-size-threshold"),
        *("--data-loader-backend-module", "--allocation-strategy", "--optimization-profile"),
        *(
            "--log-file",
            "--weight-streaming-budget",
            "--load-runtime",
            "--dla-workspace-allocation-strategy",
        ),
        *("--compare-func-script", "--postprocess-func-script", "--gen", "--gen-script", "--ckpt"),
        *("--graph-optimization-level", "--gpu-memory-fraction", "--minimum-segment-size"),
        *("--save-tactics", "--load-tactics", "--save-tactic-replay", "--load-tactic-replay"),
        *("--save-outputs", "--save-results", "--save-inputs", "--save-input-data"),
        *("--save-input-blob", "--save-accuracy-results", "--save-heatmaps", "--save-onnx"),
        *("--save-error-metrics-plot", "--save-pb", "--save-tensorboard", "--save-timeline"),
        "--workspace",
    }
)
