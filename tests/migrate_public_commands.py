"""Further command lines, after public scripts, forum posts, model cards and NVIDIA's guides.

Each is worded anew: which flags stand together, and how they are written, is what was carried over.
"""

from migrate_cases import OPTIONS, Case

UNET = "x:2x4x64x64,context:2x77x768,timesteps:2"

TRTEXEC: tuple[Case, ...] = (
    # Shapes: which are built, and which are only run
    Case(
        "trtexec --fp16 --minShapes=ids:1x128,mask:1x128 --optShapes=ids:8x128,mask:8x128 "
        "--maxShapes=ids:32x128,mask:32x128 --saveEngine=m.plan --shapes=ids:8x128,mask:8x128 "
        '--inputIOFormats="int64:chw,int64:chw" --onnx=m.onnx',
        {"shapes.ids.min": [1, 128], "shapes.mask.max": [32, 128], "precision.type": "fp16"},
    ),
    Case(
        "trtexec --onnx=m.onnx --minShapes=x:1x8 --maxShapes=x:4x8 --shapes=x:2x8,y:3",
        {"shapes.x.max": [4, 8], "shapes.y.max": [3]},
    ),
    Case(
        f"trtexec.exe --onnx=unet.onnx --minShapes={UNET} --maxShapes={UNET} --fp16 "
        "--workspace=8192",
        {"shapes.timesteps.opt": [2], "targets.0.workspace_mib": 8192},
    ),
    Case(
        'trtexec --onnx=wav2lip.onnx --workspace=2048 --minShapes="\naudio_seqs__0:1x1x80x16, '
        'img_seqs__1:1x6x256x256" --maxShapes="audio_seqs__0:8x1x80x16, img_seqs__1:8x6x256x256"',
        {"shapes.audio_seqs__0.min": [1, 1, 80, 16], "shapes.img_seqs__1.opt": [8, 6, 256, 256]},
    ),
    Case(
        "trtexec --fp16 --explicitBatch --workspace=256 --onnx=craft.onnx "
        "--minShapes=\\'input\\':1x3x360x640 --optShapes=\\'input\\':8x3x360x640 "
        "--maxShapes=\\'input\\':16x3x360x640",
        {"shapes.input.opt": [8, 3, 360, 640]},
    ),
    Case(
        "trtexec --onnx=llm.onnx --optShapes=past_key_values:32x2x1x32x1x128,ids:1x1 "
        "--minShapes=past_key_values:32x2x1x32x1x128,ids:1x1 "
        "--maxShapes=past_key_values:32x2x1x32x128x128,ids:128x1",
        {"shapes.past_key_values.max": [32, 2, 1, 32, 128, 128]},
    ),
    Case("trtexec --onnx=tts.onnx --optShapes=text:36", {"shapes.text.min": [36]}),
    Case("trtexec --onnx=m.onnx --optShapes=k:scalar,n:", {"shapes.k.opt": [], "shapes.n.opt": []}),
    Case(
        "trtexec --onnx=m.onnx --shapes=serving_default_input.1:0:1x8,/in/x/Add_output:2x8",
        {"model.onnx": "m.onnx"},
    ),
    Case(
        "trtexec --onnx=m.onnx --profile=1 --minShapes=x:9x8 --maxShapes=x:64x8 --profile=0 "
        "--minShapes=x:1x8 --optShapes=x:4x8 --maxShapes=x:8x8 --useProfile=1",
        {"shapes.0.x.opt": [4, 8], "shapes.1.x.max": [64, 8]},
    ),
    # Precision
    Case(
        "trtexec --onnx=/data/model.onnx --maxShapes=input_1:64x3x224x224 "
        "--minShapes=input_1:1x3x224x224 --optShapes=input_1:32x3x224x224 --calib=/data/calib.txt "
        "--fp16 --int8 --saveEngine=/data/model.engine",
        {"precision.quantize": "int8", "calibration.reuse": "/data/calib.txt"},
    ),
    Case(
        "trtexec --onnx=yolov8s_noqdq.onnx --fp16 --int8 --verbose --calib=calib.cache "
        "--precisionConstraints=obey --layerPrecisions=Split_36:fp16,Softmax_39:fp16 "
        "--saveEngine=y.engine --useDLACore=0 --allowGPUFallback",
        {"precision.keep.1.name": "Softmax_39", "precision.quantize": "int8"},
        ("--useDLACore=0", "--allowGPUFallback"),
    ),
    Case(
        "trtexec --onnx=light.onnx --useDLACore=0 --buildDLAStandalone --saveEngine=l.bin "
        "--inputIOFormats=int8:dla_linear --outputIOFormats=fp16:dla_linear --int8 --fp16 "
        '--calib=l.cache --precisionConstraints=obey --layerPrecisions="/head/Concat_2":fp16',
        {"precision.keep.0.name": "/head/Concat_2"},
        (
            "--useDLACore=0",
            "--buildDLAStandalone",
            "--inputIOFormats=int8:dla_linear",
            "--outputIOFormats=fp16:dla_linear",
        ),
    ),
    Case(
        "trtexec --onnx=detr.onnx --verbose --int8 --precisionConstraints=prefer "
        "--layerPrecisions=*:int8 --exportTimes=t.json --exportProfile=p.json "
        "--exportLayerInfo=l.json 2>&1 | tee detr.log",
        refused=("--layerPrecisions=*:int8 (*: int8)",),
    ),
    Case("trtexec --onnx=m.onnx --best --bf16", refused=("--bf16",)),
    Case("trtexec --onnx=m.onnx --fp16=false", {"model.onnx": "m.onnx"}),
    Case(
        "trtexec --onnx=m.onnx --fp16 --layerPrecisions='blocks[0].attn/Softmax':fp32",
        {"precision.keep.0.name": "blocks[[]0].attn/Softmax"},
    ),
    Case(
        "trtexec --onnx=m.onnx --fp16 --layerPrecisions=*/LayerNorm/*:fp32 "
        "--layerOutputTypes=/out/Add:fp32+fp16 --precisionConstraints=prefer",
        {"precision.keep.0.name": "*/LayerNorm/*"},
        ("--layerOutputTypes=/out/Add:fp32+fp16",),
    ),
    Case("trtexec --onnx=m.onnx --stronglyTyped --noTF32", {"targets.0.tf32": False}),
    Case("trtexec --onnx=m.onnx --fp16 --int4", {"precision.type": "fp16"}),
    # Types and layouts of inputs and outputs
    Case("trtexec --onnx=m.onnx --inputIOFormats=fp16:chw", refused=("--inputIOFormats=fp16:chw",)),
    Case(
        "trtexec --onnx=m.onnx --inputIOFormats=fp16:chw --outputIOFormats=fp16:chw",
        refused=("--inputIOFormats=fp16:chw", "--outputIOFormats=fp16:chw"),
    ),
    Case(
        "trtexec --onnx=m.onnx --fp16 --inputIOFormats=fp16:chw",
        refused=("--inputIOFormats=fp16:chw",),
    ),
    Case(
        "trtexec --onnx=m.onnx --fp16 --inputIOFormats=fp16:chw,int32:chw "
        "--outputIOFormats=fp16:chw",
        {"precision.io_types": "convert"},
    ),
    Case("trtexec --onnx=m.onnx --inputIOFormats=chw --outputIOFormats=fp32:chw+hwc8"),
    Case(
        "trtexec --onnx=m.onnx --int8 --inputIOFormats=int8:hwc4",
        refused=("--inputIOFormats=int8:hwc4",),
    ),
    # Devices, memory, caches
    Case("trtexec --onnx=tl.onnx --saveEngine=tl.engine --useDLACore=-1"),
    Case(
        "trtexec --onnx=m.onnx --memPoolSize=workspace:4096.0,dlaSRAM:1",
        {"targets.0.workspace_mib": 4096},
        ("--memPoolSize=dlaSRAM:1",),
    ),
    Case("trtexec --onnx=m.onnx --memPoolSize=workspace:500K", {"targets.0.workspace_mib": 1}),
    Case(
        "trtexec --onnx=m.onnx --workspace=1024 --memPoolSize=workspace:2048",
        {"targets.0.workspace_mib": 1024},
        ("--memPoolSize=workspace:2048",),
    ),
    Case(
        "trtexec --onnx=m.onnx --timingCacheFile=t.cache --errorOnTimingCacheMiss",
        {f"{OPTIONS}.timing_cache": "require"},
    ),
    Case(
        "trtexec --onnx=m.onnx --errorOnTimingCacheMiss --timingCacheFile=t.cache",
        {f"{OPTIONS}.timing_cache": "require"},
    ),
    Case(
        "trtexec --onnx=backbone.onnx --stronglyTyped --timingCacheFile=c.trt "
        "--shapes=sample:1x110x8x72x128,states:1x110x1024 --useCudaGraph",
        {"shapes.sample.max": [1, 110, 8, 72, 128]},
    ),
    Case(
        "trtexec --onnx=m.onnx --hardwareCompatibilityLevel=samecomputecapability --vc",
        {f"{OPTIONS}.hardware_compatibility": "same_compute_capability"},
    ),
    Case(
        "trtexec --onnx=m.onnx --stripAllWeights",
        {f"{OPTIONS}.strip_weights": True, f"{OPTIONS}.refit": "all"},
    ),
    Case("trtexec --onnx=m.onnx --weightless", {f"{OPTIONS}.strip_weights": True}),
    Case(
        "trtexec --onnx=m.onnx --tilingOptimizationLevel=2 --l2LimitForTiling=1048576 "
        "--maxTactics=8",
        {f"{OPTIONS}.tiling": "moderate", f"{OPTIONS}.max_tactics": 8},
    ),
    Case("trtexec --onnx=m.onnx --heuristic --minTiming=4", refused=("--heuristic",)),
    Case(
        "trtexec --onnx=m.onnx --tuneBuildRoutes=all --tuningSearch=fast --tuningTimeOut=60",
        refused=("--tuneBuildRoutes=all", "--tuningSearch=fast", "--tuningTimeOut=60"),
    ),
    Case(
        "trtexec --onnx=m.onnx --distributiveIndependence", refused=("--distributiveIndependence",)
    ),
    Case(
        "trtexec --onnx=m.onnx --staticPlugins=a.so --dynamicPlugins=b.so "
        "--setPluginsToSerialize=b.so",
        refused=("--staticPlugins=a.so", "--dynamicPlugins=b.so", "--setPluginsToSerialize=b.so"),
    ),
    Case(
        "trtexec --onnx=m.onnx --preview=+fasterDynamicShapes0805 --directIO --nvtxMode=verbose",
        refused=("--preview=+fasterDynamicShapes0805", "--directIO"),
    ),
    Case("trtexec --onnx=m.onnx --atol=1e-3 --rtol=1e-2 --loadRefOutputs=o:o.bin --monitorMemory"),
    # How it stands in a script
    Case("trtexec --onnx=model#2.onnx --fp16 # FP16", {"model.onnx": "model#2.onnx"}),
    Case(
        "trtexec --onnx=m.onnx \\\n  # --int8 \\\n  --fp16 \\\n  --avgRuns=100",
        {"precision.type": "fp16"},
    ),
    Case("trtexec --onnx=m.onnx > build.log --fp16 2>&1", {"precision.type": "fp16"}),
    Case("trtexec --onnx=m.onnx --fp16 2>&1|tee build.log", {"precision.type": "fp16"}),
    Case("trtexec --onnx=m.onnx --fp16; echo done", {"precision.type": "fp16"}),
    Case("cd /models && sudo -E ./trtexec --onnx=m.onnx --bf16 &", {"precision.type": "bf16"}),
    Case(
        "docker run --rm --gpus all -v /m:/m nvcr.io/nvidia/tensorrt trtexec --onnx=/m/a.onnx",
        {"model.onnx": "/m/a.onnx"},
    ),
    Case(
        "&&&& RUNNING TensorRT.trtexec [TensorRT v8600] # trtexec --onnx=./model/pp.onnx --fp16 "
        "--plugins=build/libpp.so --inputIOFormats=fp16:chw,int32:chw,int32:chw --dumpLayerInfo",
        {"model.onnx": "model/pp.onnx"},
        ("--plugins=build/libpp.so", "--inputIOFormats=fp16:chw,int32:chw,int32:chw"),
    ),
    Case(
        "root@6ec22a:/data# /usr/src/tensorrt/bin/trtexec --onnx=resnet.onnx --best --fp32 "
        "--workspace=5000 --inputIOFormats=fp32:chw --outputIOFormats=fp32:chw --maxTactics=-1",
        {"targets.0.workspace_mib": 5000},
    ),
    Case("# trtexec --onnx=m.onnx --fp16", {"precision.type": "fp16"}),
    Case("nsys profile -o p trtexec --onnx=m.onnx --fp16 --warmUp=0", {"precision.type": "fp16"}),
    Case(
        '"D:\\sd\\TensorRT-8.6.1.6\\bin\\trtexec.exe" --onnx="D:\\sd\\Unet onnx\\m.onnx" ^\r\n'
        "  --saveEngine=D:\\sd\\m.trt --fp16",
        {"model.onnx": "D:\\sd\\Unet onnx\\m.onnx", "precision.type": "fp16"},
    ),
)

RTX: tuple[Case, ...] = (
    Case(
        "tensorrt_rtx --onnx=m.onnx --saveEngine=m.trt --computeCapabilities=75,80,8.6,89,sm120 "
        "--skipInference",
        {"targets.0.compute_capabilities": ["7.5", "8.0", "8.6", "8.9", "12.0"]},
    ),
    Case("tensorrt_rtx --onnx=resnet50/model.onnx --saveEngine=resnet_engine.trt"),
    Case("tensorrt_rtx --onnx=m.onnx --runtimeCacheFile=./runtime.cache"),
    Case("tensorrt_rtx.exe --onnx=.\\m.onnx --rtxCudaGraphStrategy=wholeGraph"),
    Case(
        "tensorrt_rtx --onnx=m.onnx --specializeStrategyDS=lazy --minShapes=data:1x3x8x8 "
        "--optShapes=data:4x3x8x8 --maxShapes=data:16x3x8x8 --shapes=data:4x3x8x8",
        {"shapes.data.max": [16, 3, 8, 8]},
    ),
    Case("tensorrt_rtx --onnx=m.onnx --useGpu", refused=("--useGpu",)),
    Case(
        "tensorrt_rtx --onnx=m.onnx --timingCacheFile=t.cache --builderOptimizationLevel=5",
        {"targets.0.backend": "tensorrt_rtx"},
        ("--timingCacheFile=t.cache", "--builderOptimizationLevel=5"),
    ),
)

POLYGRAPHY: tuple[Case, ...] = (
    Case(
        "polygraphy convert m.onnx --convert-to trt --output m.trt --save-timing-cache m.cache "
        "--save-tactics m.json --trt-min-shapes 'x:[1,1,28,28]' --trt-opt-shapes 'x:[4,1,28,28]' "
        "--trt-max-shapes 'x:[16,1,28,28]' --fp16 --memory-pool-limit workspace:1G "
        "--builder-optimization-level 3 --max-aux-streams 4 --verbose > result.log 2>&1",
        {"shapes.x.opt": [4, 1, 28, 28], f"{OPTIONS}.max_aux_streams": 4},
        ("--save-tactics m.json",),
    ),
    Case(
        "polygraphy run encoder.onnx --onnxrt --trt --workspace 5000 --atol 1e-3 --rtol 1e-3 "
        "--verbose --trt-min-shapes speech:[1,1,80] lengths:[1] --trt-opt-shapes "
        "speech:[64,64,80] lengths:[64] --trt-max-shapes speech:[256,256,80] lengths:[256] "
        "--input-shapes speech:[64,64,80] lengths:[64]",
        {"shapes.speech.max": [256, 256, 80], "shapes.lengths.min": [1]},
    ),
    Case(
        "polygraphy run m.onnx --trt --onnxrt --fp16 --onnx-outputs mark all "
        "--trt-outputs mark all "
        "--input-shapes sample:[2,4,64,64] --atol 1e-5 --rtol 1e-5 --pool-limit workspace:20G",
        {"shapes.sample.opt": [2, 4, 64, 64], "targets.0.workspace_mib": 20480},
        ("--onnx-outputs mark all", "--trt-outputs mark all"),
    ),
    Case(
        "polygraphy convert m.onnx -o m.plan --trt-min-shapes x:[1,3] --trt-max-shapes x:[4,3] "
        "--trt-min-shapes x:[5,3] --trt-max-shapes x:[8,3]",
        {"shapes.0.x.max": [4, 3], "shapes.1.x.min": [5, 3]},
    ),
    Case(
        "polygraphy run m.onnx --trt --onnxrt --atol 495:1e-3 out.0:1e-2 1e-4 --snr-threshold 30",
        {"verify.outputs.495.max_abs": 1e-3, "verify.tolerance.sqnr_db": 30.0},
    ),
    Case(
        "polygraphy convert m.onnx --fp-to-fp16 -o m_fp16.onnx",
        refused=("--fp-to-fp16", "-o m_fp16.onnx"),
    ),
    Case(
        "polygraphy convert m.onnx --convert-to onnx-like-trt-network --output n.onnx",
        refused=("--convert-to onnx-like-trt-network", "--output n.onnx"),
    ),
    Case(
        "python3 -m polygraphy run m.onnx --trt --trt-min-shape x:[1,8] --trt-max-shape x:[4,8] "
        "--load-inputs in.json --validate",
        {"shapes.x.min": [1, 8]},
        ("--load-inputs in.json", "--validate"),
    ),
    Case(
        "polygraphy run m.onnx --trt --tensor-dtypes x:float16 --tensor-formats x:hwc8 --bf16",
        {"precision.type": "bf16"},
        ("--tensor-dtypes x:float16", "--tensor-formats x:hwc8"),
    ),
    Case(
        "polygraphy run m.onnx --trt --onnxrt --inputs input,1x3x8x8 --compare cosine_similarity "
        "--cosine-similarity-threshold 0.999",
        {"shapes.input.opt": [1, 3, 8, 8], "verify.tolerance.cosine": 0.999},
    ),
    Case(
        "polygraphy convert m.onnx -o m.plan --error-on-timing-cache-miss --load-timing-cache t "
        "--tiling-optimization-level FULL --runtime-platform WINDOWS_AMD64 --quiet",
        {f"{OPTIONS}.timing_cache": "require", f"{OPTIONS}.tiling": "full"},
    ),
)

PUBLIC = (*TRTEXEC, *RTX, *POLYGRAPHY)
