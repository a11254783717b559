"""Names of GPUs and their compute capabilities, so that a device can be called what it is called.

Source: developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus.
"""

import re

from trtforge.errors import UsageError

_FORMS = r"(ti|super|laptop|maxq|design|with|d|\d+gb)*"
"""What stands behind the number of a GeForce."""

GPUS: tuple[tuple[str, str, str], ...] = (
    ("V100", r"v100[a-z0-9]*|titanv", "7.0"),
    ("Xavier", r"xavier[a-z0-9]*", "7.2"),
    ("T4", r"t4|t4g", "7.5"),
    ("RTX 20xx", rf"(rtx|gtx)?(20[5-8]0|16[3-6]0){_FORMS}|titanrtx", "7.5"),
    ("RTX 6000 (Turing)", r"quadrortx[34568]000", "7.5"),
    ("A100", r"a100[a-z0-9]*|a30", "8.0"),
    ("A10", r"a10|a10g|a16|a2|a40", "8.6"),
    ("RTX 30xx", rf"(rtx)?30[5-9]0{_FORMS}", "8.6"),
    ("RTX A6000", r"rtxa(400|500|[12345]000|4500|5500|6000)[a-z0-9]*", "8.6"),
    ("Orin", r"(agx)?orin[a-z0-9]*", "8.7"),
    ("RTX 40xx", rf"(rtx)?40[5-9]0{_FORMS}", "8.9"),
    ("L4", r"l4|l40|l40s|l20|l2", "8.9"),
    ("RTX 6000 Ada", r"rtx(2000|4000|4500|5000|5880|6000)(sff)?ada[a-z0-9]*", "8.9"),
    ("H100", r"(gh?|h)(100|200|800|20)[a-z0-9]*", "9.0"),
    ("B200", r"g?b(100|200)[a-z0-9]*", "10.0"),
    ("B300", r"g?b300[a-z0-9]*", "10.3"),
    ("Thor", r"(agx)?thor[a-z0-9]*|t5000|t4000", "11.0"),
    ("RTX 50xx", rf"(rtx)?50[5-9]0{_FORMS}", "12.0"),
    ("RTX PRO 6000", r"rtxpro(500|[123456]000|4500)[a-z0-9]*", "12.0"),
    ("DGX Spark", r"(dgx)?spark|gb10", "12.1"),
)
"""What it is called in messages, names in small letters without spaces, compute capability."""

_FIRST_MAJOR = 5
"""No TensorRT since 10 runs on GPUs below, so "12" is no 1.2."""

_SLICE = re.compile(r"\s+mig\s+[1-9]g\.\d+gb$")
"""What CUDA puts behind the name of a part of a GPU: " MIG 1g.10gb"."""

_MAKER = re.compile(r"nvidia|geforce|tesla|jetson|gpu|[\s_()-]")


def compute_capability_of(device: str) -> str:
    """Return the compute capability of a GPU: from itself ("8.9", "sm_89") or from a name.

    Raises:
        UsageError: TF0131, it is neither.
    """
    text = device.strip().lower()
    found = re.fullmatch(r"(?:sm_?|compute_|cc)?([1-9][0-9]?)[._]?([0-9])[af]?", text)
    if found is not None and int(found[1]) >= _FIRST_MAJOR:
        return f"{found[1]}.{found[2]}"
    name = _MAKER.sub("", _SLICE.sub("", text))
    for _, pattern, capability in GPUS:
        if name and re.fullmatch(pattern, name):
            return capability
    known = ", ".join(f"{shown} ({capability})" for shown, _, capability in GPUS)
    raise UsageError(
        "TF0131",
        f"'{device}' is no compute capability, and no GPU of this name is known",
        f"write --device 8.9, or sm89, or one of: {known}",
    )
