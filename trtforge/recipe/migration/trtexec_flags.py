"""trtexec's flags that no key of a recipe takes, and why.

Sources: every option that samples/common/sampleOptions.cpp of TensorRT OSS 7.0 to 11.1 reads, and
the documentation of TensorRT-RTX 1.7 for those of its `tensorrt_rtx`.
"""

_ALWAYS = "always so"
_SHOWN = "it shows or saves what a build leaves in the bundle: reports, layers.json, build.log"
DLA = "there is no DLA here: build with trtexec on the device"
_SAFETY = "the safety builder is not part of trtforge: build with NVIDIA's own tool"
_IMPLICIT = (
    "implicit batches are gone since TensorRT 10: give min, opt and max shapes, batch included"
)
_OTHER_PARSERS = "only ONNX is read; this parser was removed in TensorRT 10: export to ONNX"
_MEASURES = "it says how trtexec measures, not what it builds"
_PLUGINS = "TensorRT plugins cannot be named in a recipe; use an ONNX function or a fusion pass"
_TYPED = "removed in TensorRT 11; here types always are as the graph says"

SKIPPED: dict[str, str] = {
    **dict.fromkeys(("--stronglyTyped", "--explicitBatch", "--explicitPrecision"), _ALWAYS),
    **dict.fromkeys(
        (
            *("--dumpLayerInfo", "--exportLayerInfo", "--dumpOptimizationProfile", "--dumpRefit"),
            *("--dumpProfile", "--exportProfile", "--separateProfileRun"),
        ),
        _SHOWN,
    ),
    "--saveEngine": "the engine is engines/<target>/model.engine in the bundle that is built",
    "--buildOnly": "a build only builds",
    "--skipInference": "a build only builds",
    **dict.fromkeys(
        ("--verbose", "-v"), "use `trtforge build -v`; the builder's whole log is in the bundle"
    ),
    "--fp32": "it is the default; trtexec itself knows no such flag",
    "--monitorMemory": "builds say how much memory they took",
    "--nativeInstanceNorm": "it is the default",
    "--ni": "it is the default",
    "--precisionConstraints": _TYPED,
    "--tempdir": "set TMPDIR",
    "--tempfileControls": "set TMPDIR",
    "--asyncFileReader": "it says how trtexec reads an engine",
    "--getPlanVersionOnly": "`trtforge inspect ENGINE` shows it",
    "--noCompilationCache": "it changes no engine",
    "--calibProfile": "every sample is measured at its own shape, whatever the profile",
    "--minShapesCalib": "every sample is measured at its own shape",
    "--optShapesCalib": "every sample is measured at its own shape",
    "--maxShapesCalib": "every sample is measured at its own shape",
    "--minTiming": "removed in TensorRT 10; it says how often a tactic is timed",
    "--nvtxMode": "removed; see profiling",
    "--device": "set CUDA_VISIBLE_DEVICES",
    "--help": "it shows trtexec's help",
    "-h": "it shows trtexec's help",
}
"""Flag -> why it needs no counterpart."""

_BENCH: dict[str, tuple[str, ...]] = {
    "--queries": ("--iterations", "--avgRuns"),
    "--seconds": ("--duration",),
    "--warmup": ("--warmUp",),
    "--streams": ("--streams", "--infStreams", "--threads"),
    "--cuda-graphs": ("--useCudaGraph", "--rtxCudaGraphStrategy"),
    "--json": ("--percentile", "--exportTimes"),
}
"""Option of `trtforge bench` -> the flags that it stands for."""

ELSEWHERE: dict[str, tuple[str, str]] = {
    **{
        flag: (f"trtforge bench {option}", _MEASURES)
        for option, flags in _BENCH.items()
        for flag in flags
    },
    **dict.fromkeys(
        (
            *("--sleepTime", "--idleTime", "--exposeDMA", "--noDataTransfers", "--useSpinWait"),
            *("--includeDataTransfers", "--noCudaGraph", "--noSpinWait", "--useManagedMemory"),
            *("--timeDeserialize", "--timeRefit", "--dumpOutput", "--exportOutput", "--useProfile"),
            *("--dumpRawBindingsToFile", "--persistentCacheRatio", "--allocationStrategy"),
            *("--weightStreamingBudget", "--optProfile", "--runtimeCacheFile"),
            "--specializeStrategyDS",
        ),
        ("trtexec --loadEngine", f"{_MEASURES}: run it on the engine of the bundle"),
    ),
    **dict.fromkeys(
        ("--loadRefOutputs", "--refPair", "--accuracyAlgorithm", "--accuracyThreshold"),
        ("trtforge verify", "it compares with the original itself; bounds are in verify.tolerance"),
    ),
    "--atol": ("trtforge verify", "set verify.tolerance.max_abs"),
    "--rtol": ("trtforge verify", "set verify.tolerance.max_rel"),
    "--loadInputs": ("trtforge verify --data", "inputs for a comparison, as .npz"),
    "--loadEngine": ("trtforge bench ENGINE", "it builds nothing"),
}
"""Flag -> the command that does it, and why."""

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            *("--allowGPUFallback", "--buildDLAStandalone", "--layerDeviceTypes", "--adjustForDLA"),
            *("--reportCapabilityDLA", "--uint8AsymmetricQuantizationDLA"),
        ),
        DLA,
    ),
    **dict.fromkeys(
        (
            *("--safe", "--consistency", "--restricted", "--dumpKernelText", "--safetyPlugins"),
            *("--std", "--serialized"),
        ),
        _SAFETY,
    ),
    **dict.fromkeys(
        (
            *("--setBuildRoute", "--helpBuildRoute", "--tuneBuildRoutes", "--tuneBuildRouteFile"),
            *("--tuningSearch", "--tuningTimeOut", "--tuningCacheFile", "--tuningResultFile"),
            *("--continue", "--dryRun", "--saveAllEngines"),
        ),
        "build routes are left to the library: tune them with trtexec 11",
    ),
    **dict.fromkeys(("--batch", "--maxBatch"), _IMPLICIT),
    **dict.fromkeys(("--uff", "--uffInput", "--uffNHWC", "--deploy", "--model"), _OTHER_PARSERS),
    "--output": "outputs are those of the ONNX model; add or remove them there",
    **dict.fromkeys(
        (
            *("--plugins", "--staticPlugins", "--dynamicPlugins", "--setPluginsToSerialize"),
            *("--ignoreParsedPluginLibs", "--pluginInstanceNorm", "--pi", "--enablePluginOverride"),
        ),
        _PLUGINS,
    ),
    "--layerOutputTypes": f"{_TYPED}; keep rules of `precision` say which type a node computes in",
    "--tacticSources": (
        "CUBLAS, CUBLAS_LT and CUDNN were removed in TensorRT 11; the other sources are its own "
        "choice"
    ),
    "--directIO": "inputs and outputs are linear",
    "--preview": "preview features change from version to version and are left to the library",
    "--useRuntime": "it says which runtime loads the engine: that is the application's choice",
    "--leanDLLPath": "it says which runtime loads the engine: that is the application's choice",
    "--decomposableAttentions": "attention is made decomposable wherever that lets it build",
    "--heuristic": "removed in TensorRT 10: use --builderOptimizationLevel=2, which searches less",
    "--useGpu": "name the GPUs that the engine is for: targets[].compute_capabilities",
    "--distributiveIndependence": "no key of a recipe asks for it",
    "--refitFromOnnx": "it changes an engine that is there: build one of the other model",
    "--markDebug": "debug tensors are not part of a build; `trtforge debug` compares all tensors",
    "--markUnfusedTensorsAsDebugTensors": (
        "debug tensors are not part of a build; `trtforge debug` compares all tensors"
    ),
    "--saveDebugTensors": "debug tensors are not part of a build",
    "--saveAllDebugTensors": "debug tensors are not part of a build",
    "--remoteAutoTuningConfig": "remote tuning needs NVIDIA's own tool",
    "--cpuOnly": "TensorRT-RTX builds without a GPU as it is; name compute_capabilities",
}
"""Flag -> why nothing does it, and what to use instead."""
