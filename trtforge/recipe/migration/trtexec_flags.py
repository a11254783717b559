"""trtexec's flags that no key of a recipe takes, and why.

Source: `trtexec --help` of TensorRT 8.6, 10.x and 11.x.
"""

_ALWAYS = "always so"
_SHOWN = "it shows or saves what a build leaves in the bundle: reports, layers.json, build.log"
_DLA = "there is no DLA here: build with trtexec on the device"
_SAFETY = "the safety builder is not part of trtforge: build with NVIDIA's own tool"
_IMPLICIT = (
    "implicit batches are gone since TensorRT 10: give min, opt and max shapes, batch included"
)
_OTHER_PARSERS = "only ONNX is read; this parser was removed in TensorRT 10: export to ONNX"
_MEASURES = "it says how trtexec measures, not what it builds"
_PLUGINS = "TensorRT plugins cannot be named in a recipe; use an ONNX function or a fusion pass"
_TYPED = "removed in TensorRT 11; here types always are as the graph says"

SKIPPED: dict[str, str] = {
    **dict.fromkeys(("--stronglyTyped", "--explicitBatch"), _ALWAYS),
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
    "--verbose": "use `trtforge build -v`; the builder's whole log is in the bundle",
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

ELSEWHERE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *("--iterations", "--warmUp", "--duration", "--sleepTime", "--idleTime", "--streams"),
            *("--infStreams", "--exposeDMA", "--noDataTransfers", "--useManagedMemory"),
            *("--useSpinWait", "--threads", "--useCudaGraph", "--timeDeserialize", "--timeRefit"),
            *("--percentile", "--exportTimes", "--dumpOutput", "--exportOutput", "--avgRuns"),
            *("--dumpRawBindingsToFile", "--useProfile", "--persistentCacheRatio"),
            *("--allocationStrategy", "--weightStreamingBudget", "--optProfile"),
        ),
        ("trtexec --loadEngine", f"{_MEASURES}: run it on the engine of the bundle"),
    ),
    "--loadInputs": ("trtforge verify --data", "inputs for a comparison, as .npz"),
    "--loadEngine": ("trtforge verify ENGINE --against MODEL", "it builds nothing"),
}
"""Flag -> the command that does it, and why."""

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("--useDLACore", "--allowGPUFallback", "--buildDLAStandalone", "--layerDeviceTypes"), _DLA
    ),
    **dict.fromkeys(("--safe", "--consistency", "--restricted", "--dumpKernelText"), _SAFETY),
    **dict.fromkeys(("--batch", "--maxBatch"), _IMPLICIT),
    **dict.fromkeys(("--uff", "--uffInput", "--uffNHWC", "--deploy", "--model"), _OTHER_PARSERS),
    "--output": "outputs are those of the ONNX model; add or remove them there",
    **dict.fromkeys(
        (
            *("--plugins", "--staticPlugins", "--dynamicPlugins", "--setPluginsToSerialize"),
            *("--ignoreParsedPluginLibs", "--pluginInstanceNorm"),
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
    "--uint8AsymmetricQuantizationDLA": _DLA,
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
