"""What is measured: models with their samples, and the contenders' commands."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

BARE = "trtforge, graph as it is"
PLAIN = "trtforge"
DATA = "trtforge --data"
COMMON = "onnxconverter-common"
ORT = "onnxruntime float16"
AUTOCAST = "AutoCast"
AUTOCAST_DATA = "AutoCast, data"

TOOLS = (BARE, PLAIN, DATA, COMMON, ORT, AUTOCAST, AUTOCAST_DATA)
WITH_DATA = (DATA, AUTOCAST_DATA)


@dataclass(frozen=True)
class Environments:
    """The bin folders of the environments; None where one is not at hand."""

    trtforge: Path
    peers: Path | None
    modelopt: Path | None

    def named(self) -> dict[str, Path]:
        """Return the environments that are at hand, by name."""
        return {name: folder for name, folder in vars(self).items() if folder is not None}


@dataclass(frozen=True)
class Case:
    """One model with its samples.

    Attributes:
        name: the model's, in the tables.
        model: the FP32 ONNX file.
        data: .npy or .npz, samples along axis 0; the first few are measured.
        held: likewise; the cast model is judged on them.
        is_planted: a fault is planted in it; it is judged and not timed.
    """

    name: str
    model: Path
    data: Path
    held: Path
    is_planted: bool = False

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read `NAME=MODEL.onnx,DATA.npy,HELD.npy`."""
        name, _, rest = text.partition("=")
        try:
            model, data, held = rest.split(",")
            return cls(name, *(Path(part).resolve() for part in (model, data, held)))
        except (TypeError, ValueError):
            raise SystemExit(f"'{text}' is not NAME=MODEL,DATA,HELD") from None


def command(
    tool: str, where: Environments, case: Case, target: Path, batches: Path
) -> list[str] | None:
    """The command of one contender; None where its environment is not at hand.

    Args:
        tool: one of TOOLS.
        where: the environments.
        case: the model.
        target: the file to write.
        batches: a folder with one .npz a sample, the form in which AutoCast takes several.
    """
    model = str(case.model)
    if tool in (BARE, PLAIN, DATA):
        options = {BARE: ["--no-optimize"], PLAIN: [], DATA: ["--data", str(case.data)]}[tool]
        return [str(where.trtforge / "trtforge"), "cast", model, "-o", str(target), "-q", *options]
    if tool in (COMMON, ORT) and where.peers is not None:
        script = str(FOLDER / "peer.py")
        return [str(where.peers / "python"), "-P", script, tool, model, str(target)]
    if tool in (AUTOCAST, AUTOCAST_DATA) and where.modelopt is not None:
        options = ["--low_precision_type", "fp16", "--keep_io_types", "--providers", "cpu"]
        options += ["--log_level", "ERROR", "--onnx_path", model, "--output_path", str(target)]
        if tool == AUTOCAST_DATA:
            options += ["--calibration_data", str(batches)]
        return [str(where.modelopt / "python"), "-m", "modelopt.onnx.autocast", *options]
    return None
