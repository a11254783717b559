"""Command lines of the kinds that NVIDIA's documentation and public build scripts hold.

Each is worded anew: which flags stand together is what was carried over. Beside each stands what
the recipe must say (dotted keys), and which flags must be refused.
"""

from migrate_cases import OPTIONS, Case
from migrate_public_commands import PUBLIC

CASES: tuple[Case, ...] = (
    Case("trtexec --onnx=resnet50.onnx", {"model.onnx": "resnet50.onnx", "targets.0.tf32": True}),
    Case("trtexec --onnx=resnet50.onnx --saveEngine=resnet50.engine"),
    Case("trtexec --onnx=resnet50.onnx --fp16", {"precision.type": "fp16"}),
    Case("trtexec --onnx=vit.onnx --bf16 --noTF32", {"targets.0.tf32": False}),
    Case("trtexec --onnx=resnet50.onnx --best", {"precision.type": "fp16"}),
    Case("trtexec --onnx=qat.onnx --int8 --fp16", {"precision.quantize": "none"}),
    Case("trtexec --onnx=qat.onnx --fp8 --fp16", {"precision.quantize": "none"}),
    Case("trtexec --onnx=q.onnx --stronglyTyped --skipInference"),
    Case(
        "trtexec --onnx=yolo.onnx --int8 --calib=yolo.cache --fp16",
        {"precision.quantize": "int8", "calibration.reuse": "yolo.cache"},
    ),
    Case(
        "trtexec --onnx=yolo.onnx --best --calib=yolo.cache",
        {"precision.quantize": "int8", "precision.type": "fp16"},
    ),
    Case(
        "trtexec --onnx=model.onnx --minShapes=input:1x3x224x224 --optShapes=input:8x3x224x224 "
        "--maxShapes=input:32x3x224x224",
        {"shapes.input.opt": [8, 3, 224, 224], "shapes.input.max": [32, 3, 224, 224]},
    ),
    Case(
        "trtexec --onnx=bert.onnx --minShapes=ids:1x128,mask:1x128 --optShapes=ids:8x128,mask:8x128"
        " --maxShapes=ids:16x384,mask:16x384 --fp16",
        {"shapes.mask.max": [16, 384], "shapes.ids.min": [1, 128]},
    ),
    Case(
        "trtexec --onnx=model.onnx --shapes=input:4x3x224x224",
        {"shapes.input.min": [4, 3, 224, 224], "shapes.input.max": [4, 3, 224, 224]},
    ),
    Case(
        "trtexec --onnx=tf.onnx --shapes=input_1:0:1x224x224x3",
        {"shapes.input_1:0.opt": [1, 224, 224, 3]},
    ),
    Case(
        "trtexec --onnx=m.onnx --shapes=\"'image,left':1x3x8x8\"",
        {"shapes.image,left.opt": [1, 3, 8, 8]},
    ),
    Case(
        "trtexec --onnx=m.onnx --profile=0 --minShapes=x:1x8 --maxShapes=x:4x8 --profile=1 "
        "--minShapes=x:5x8 --maxShapes=x:64x8",
        {"shapes.0.x.max": [4, 8], "shapes.1.x.min": [5, 8], "shapes.1.x.opt": [64, 8]},
    ),
    Case("trtexec --onnx=m.onnx --workspace=4096", {"targets.0.workspace_mib": 4096}),
    Case(
        "trtexec --onnx=m.onnx --memPoolSize=workspace:2G,tacticSharedMem:48K",
        {"targets.0.workspace_mib": 2048, f"{OPTIONS}.tactic_shared_memory_kib": 48},
    ),
    Case(
        "trtexec --onnx=m.onnx --builderOptimizationLevel=5 --maxAuxStreams=2",
        {f"{OPTIONS}.optimization_level": 5, f"{OPTIONS}.max_aux_streams": 2},
    ),
    Case(
        "trtexec --onnx=m.onnx --timingCacheFile=timing.cache --avgTiming=16",
        {f"{OPTIONS}.timing_cache": "use", f"{OPTIONS}.avg_timing_iterations": 16},
    ),
    Case("trtexec --onnx=m.onnx --noBuilderCache", {f"{OPTIONS}.timing_cache": "off"}),
    Case(
        "trtexec --onnx=m.onnx --versionCompatible --excludeLeanRuntime",
        {f"{OPTIONS}.version_compatible": True, f"{OPTIONS}.exclude_lean_runtime": True},
    ),
    Case(
        "trtexec --onnx=m.onnx --hardwareCompatibilityLevel=ampere+",
        {f"{OPTIONS}.hardware_compatibility": "ampere_plus"},
    ),
    Case(
        "trtexec --onnx=m.onnx --runtimePlatform=WindowsAMD64",
        {f"{OPTIONS}.runtime_platform": "windows_amd64"},
    ),
    Case(
        "trtexec --onnx=m.onnx --stripWeights --refit --saveEngine=thin.plan",
        {f"{OPTIONS}.strip_weights": True, f"{OPTIONS}.refit": "all"},
    ),
    Case(
        "trtexec --onnx=llm.onnx --stronglyTyped --allowWeightStreaming "
        "--weightStreamingBudget=50%",
        {f"{OPTIONS}.weight_streaming": True},
    ),
    Case("trtexec --onnx=m.onnx --sparsity=enable --fp16", {f"{OPTIONS}.sparsity": True}),
    Case("trtexec --onnx=m.onnx --sparsity=force", refused=("--sparsity=force",)),
    Case(
        "trtexec --onnx=m.onnx --fp16 --precisionConstraints=obey "
        "--layerPrecisions=/head/*:fp32,/softmax:fp32",
        {"precision.keep.1.name": "/softmax", "precision.keep.0.type": "fp32"},
    ),
    Case(
        "trtexec --onnx=m.onnx --fp16 --layerOutputTypes=conv1:fp16",
        refused=("--layerOutputTypes=conv1:fp16",),
    ),
    Case(
        "trtexec --onnx=m.onnx --fp16 --inputIOFormats=fp16:chw --outputIOFormats=fp16:chw",
        {"precision.io_types": "convert"},
    ),
    Case(
        "trtexec --onnx=m.onnx --inputIOFormats=int8:chw32",
        refused=("--inputIOFormats=int8:chw32",),
    ),
    Case(
        "trtexec --onnx=m.onnx --useDLACore=0 --allowGPUFallback --fp16",
        refused=("--useDLACore=0", "--allowGPUFallback"),
    ),
    Case("trtexec --onnx=m.onnx --plugins=./libx.so", refused=("--plugins=./libx.so",)),
    Case("trtexec --onnx=m.onnx --maxBatch=16", refused=("--maxBatch=16",)),
    Case("trtexec --onnx=m.onnx --tacticSources=-CUDNN", refused=("--tacticSources=-CUDNN",)),
    Case("trtexec --onnx=m.onnx --safe --fp16", refused=("--safe",)),
    Case(
        "trtexec --onnx=m.onnx --dumpProfile --separateProfileRun --exportProfile=p.json "
        "--exportLayerInfo=l.json --profilingVerbosity=detailed",
        {"targets.0.tf32": True},
    ),
    Case(
        "trtexec --onnx=m.onnx --iterations=100 --warmUp=500 --duration=10 --useCudaGraph "
        "--noDataTransfers --useSpinWait --infStreams=2 --percentile=99"
    ),
    Case(
        "/usr/src/tensorrt/bin/trtexec --onnx=m.onnx --fp16 --verbose 2>&1 | tee build.log",
        {"precision.type": "fp16"},
    ),
    Case(
        "CUDA_VISIBLE_DEVICES=1 trtexec \\\n  --onnx=m.onnx \\\n  --fp16 \\\n  --tempdir=/tmp",
        {"precision.type": "fp16"},
    ),
    Case("trtexec --onnx m.onnx --saveEngine m.plan --fp16", {"model.onnx": "m.onnx"}),
    Case(
        "tensorrt_rtx --onnx=m.onnx --computeCapabilities=SM86,SM120",
        {"targets.0.backend": "tensorrt_rtx", "targets.0.compute_capabilities": ["8.6", "12.0"]},
    ),
    Case(
        "polygraphy convert m.onnx --fp16 -o m.plan --trt-min-shapes x:[1,3] --trt-opt-shapes "
        "x:[4,3] --trt-max-shapes x:[8,3] --pool-limit workspace:1G",
        {"shapes.x.opt": [4, 3], "targets.0.workspace_mib": 1024},
    ),
    Case(
        "polygraphy convert --int8 --calibration-cache c.cache --data-loader-script load.py m.onnx "
        "--convert-to trt -o m.plan",
        {"calibration": {"data": "load.py"}},
    ),
    Case(
        "polygraphy run m.onnx --trt --onnxrt --atol 1e-3 --rtol 1e-2 --fp16 --tf32",
        {"verify.tolerance.max_abs": 1e-3, "targets.0.tf32": True},
    ),
    Case(
        "polygraphy run m.onnx --trt --trt-outputs mark all --tactic-sources CUBLAS",
        refused=("--trt-outputs mark all", "--tactic-sources CUBLAS"),
    ),
    Case(
        "polygraphy convert m.onnx -o m.plan --refittable --strip-plan --version-compatible "
        "--hardware-compatibility-level ampere_plus --builder-optimization-level 4",
        {f"{OPTIONS}.optimization_level": 4, f"{OPTIONS}.hardware_compatibility": "ampere_plus"},
    ),
    *PUBLIC,
)
