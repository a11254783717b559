"""What is measured: models with their samples, and the contenders' commands."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

OURS = {
    "trtforge default": [],
    "trtforge minmax": ["--method", "minmax", "--techniques", "none"],
    "trtforge entropy": ["--method", "entropy", "--techniques", "none"],
    "trtforge percentile": ["--method", "percentile", "--techniques", "none"],
    "trtforge mse": ["--method", "mse", "--techniques", "none"],
}
"""Whole commands, from the FP32 file to the quantized one: clean-up, calibration, Q/DQ."""

CALIBRATION = "trtforge calibrate"
"""Calibration alone, min-max: beside the floor, which does the same and no more."""

FLOOR = "floor"
"""One ONNX Runtime pass in which the graph reduces every activation to minimum and maximum."""

ONNXRUNTIME = {
    "onnxruntime MinMax": "MinMax",
    "onnxruntime Entropy": "Entropy",
    "onnxruntime Percentile": "Percentile",
}
MODELOPT = {"modelopt max": "max", "modelopt entropy": "entropy"}
NNCF = "nncf"

PEERS = (*ONNXRUNTIME, *MODELOPT, NNCF)
TOOLS = (*OURS, CALIBRATION, FLOOR, *PEERS)

FULL = "--attention"
"""Every matrix product is quantized, as ONNX Runtime does; ours leaves attention out otherwise."""


@dataclass(frozen=True)
class Environments:
    """The bin folders of the environments; None where one is not at hand."""

    trtforge: Path
    peers: Path | None
    modelopt: Path | None
    nncf: Path | None

    def named(self) -> dict[str, Path]:
        """Return the environments that are at hand, by name."""
        return {name: folder for name, folder in vars(self).items() if folder is not None}


@dataclass(frozen=True)
class Case:
    """One model with its calibration samples and its held-out ones.

    Attributes:
        name: the model's, in the tables; `NAME@SAMPLES` for the same with other samples.
        model: the FP32 ONNX file.
        data: .npy or .npz, samples along axis 0; all of them are used.
        held: likewise; the quantized model is judged on them.
        samples: how many samples `data` holds.
    """

    name: str
    model: Path
    data: Path
    held: Path
    samples: int

    @property
    def is_first(self) -> bool:
        """Whether it is the model's main case, and not one with another number of samples."""
        return "@" not in self.name

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read `NAME=MODEL.onnx,CALIBRATION.npy,HELD.npy,SAMPLES`."""
        name, _, rest = text.partition("=")
        try:
            model, data, held, samples = rest.split(",")
            return cls(name, *(Path(part).resolve() for part in (model, data, held)), int(samples))
        except (TypeError, ValueError):
            raise SystemExit(f"'{text}' is not NAME=MODEL,DATA,HELD,SAMPLES") from None


def command(tool: str, where: Environments, case: Case, target: Path) -> list[str] | None:
    """The command of one contender; None where its environment is not at hand."""
    model, data = str(case.model), str(case.data)
    ours = [str(where.trtforge / "trtforge")]
    if tool in OURS:
        options = ["--data", data, "--samples", str(case.samples), FULL, *OURS[tool]]
        return [*ours, "quantize", model, "-o", str(target), "--quiet", *options]
    if tool == CALIBRATION:
        options = ["--data", data, "--samples", str(case.samples), "--method", "minmax"]
        out = str(target.with_suffix(".json"))
        return [*ours, "calibrate", model, "-o", out, "--quiet", *options]
    if tool == FLOOR:
        return _script(where.trtforge, "floor.py", model, data, str(case.samples))
    if tool in ONNXRUNTIME and where.peers is not None:
        return _script(where.peers, "peer.py", ONNXRUNTIME[tool], model, data, str(target))
    if tool == NNCF and where.nncf is not None:
        return _script(where.nncf, "peer.py", "nncf", model, data, str(target))
    if tool in MODELOPT and where.modelopt is not None:
        options = ["--quantize_mode", "int8", "--calibration_method", MODELOPT[tool]]
        options += ["--calibration_eps", "cpu", "--high_precision_dtype", "fp32"]
        options += ["--onnx_path", model, "--calibration_data_path", data]
        program = [str(where.modelopt / "python"), "-m", "modelopt.onnx.quantization"]
        return [*program, *options, "--output_path", str(target), "--log_level", "WARNING"]
    return None


def _script(folder: Path, name: str, *words: str) -> list[str]:
    return [str(folder / "python"), "-P", str(FOLDER / name), *words]
