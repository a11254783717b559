"""What a measurement hangs on: the machine, the versions, and the source of trtforge."""

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Protocol

from cleanup.contenders import PACKAGES

_FACTS = """
import hashlib, json, pathlib, platform, sys
from importlib import metadata, util
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
digest, found = hashlib.sha256(), util.find_spec("trtforge")
if found is not None:
    for file in sorted(pathlib.Path(found.origin).parent.rglob("*.py")):
        digest.update(file.read_bytes())
source = digest.hexdigest()[:12] if found is not None else None
print(json.dumps({"versions": versions, "source": source, "python": platform.python_version()}))
"""


class Named(Protocol):
    """The Python environments of a benchmark."""

    def named(self) -> dict[str, Path]:
        """Return their bin folders by name; `trtforge` is one."""


def describe_setting(environments: Named) -> dict[str, Any]:
    """Return the facts that make two measurements comparable when they are the same."""
    facts = {name: _facts(folder) for name, folder in environments.named().items()}
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": total_memory_bytes(),
        "python": facts["trtforge"]["python"],
        "source": facts["trtforge"]["source"],
        "versions": {name: found["versions"] for name, found in facts.items()},
    }


def digest(facts: dict[str, Any]) -> str:
    """Return a short name for a setting."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def total_memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _facts(folder: Path) -> dict[str, Any]:
    command = [str(folder / "python"), "-P", "-c", _FACTS, *PACKAGES]
    ended = subprocess.run(command, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
