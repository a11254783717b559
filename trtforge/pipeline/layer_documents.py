"""Documents that tell an engine's layers: the inspector's, a parsed network, a bundle's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.engine.layer_diff import (
    LayerRow,
    LayersDifference,
    diff_layers,
    layer_rows,
    layer_times,
)
from trtforge.errors import READABLE, Place, UsageError

if TYPE_CHECKING:
    from trtforge.bundle.read import Bundle


_LAYERS = "name what an engine inspector wrote (trtexec --exportLayerInfo), or a layers.json"


def read_layers(path: Path) -> tuple[LayerRow, ...]:
    """Read the layers in a file, and times from a profile beside it, where there is one.

    A profile beside NAME.json is NAME.profile.json; beside layers.json also profile.json, which is
    no other file's: two engines in one folder would have the same times.

    Args:
        path: what `trtexec --exportLayerInfo` or `--exportProfile` writes, or a layers.json.

    Raises:
        UsageError: TF0753, it is no such file.
    """
    beside = [path.with_suffix(".profile.json")]
    if path.name == "layers.json":
        beside.append(path.with_name("profile.json"))
    found = next((one for one in beside if one.is_file()), None)
    times = None if found is None else layer_times(_json(found))
    rows = layer_rows(_json(path), times)
    if rows is None:
        raise UsageError(
            "TF0753",
            f"'{path}' tells no layers",
            _LAYERS,
            Place(file=str(path)),
        )
    return rows


def diff_layer_files(before: Path, after: Path) -> LayersDifference:
    """Compare the layers in two files."""
    return diff_layers(read_layers(before), read_layers(after))


@dataclass(frozen=True)
class BundlesDifference:
    """What changed from one bundle to another.

    Attributes:
        fields: dotted key of the manifest -> what it was, what it is.
        targets: target in both -> how its layers changed.
        missing: targets that only one of them has: name -> which one.
    """

    fields: Mapping[str, tuple[Any, Any]]
    targets: Mapping[str, LayersDifference]
    missing: Mapping[str, str]

    @property
    def identical(self) -> bool:
        """Whether nothing but times changed."""
        same = all(found.identical for found in self.targets.values())
        return not self.fields and not self.missing and same

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "fields": {key: list(pair) for key, pair in self.fields.items()},
            "targets": {name: found.as_json() for name, found in self.targets.items()},
            "missing": dict(self.missing),
        }


_COMPARED = ("model", "profiles", "precision", "calibration", "targets", "verdicts", "provenance")


def diff_bundles(before: Path, after: Path) -> BundlesDifference:
    """Compare two bundles: what their manifests say, and the layers of targets of one name.

    Raises:
        IntegrityError: a file is not what its manifest says.
    """
    from trtforge.bundle.read import open_bundle

    bundles = open_bundle(before), open_bundle(after)
    flat = [_flat(_facts(bundle)) for bundle in bundles]
    fields = {
        key: (flat[0].get(key), flat[1].get(key))
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    }
    names = [[target.name for target in bundle.manifest.targets] for bundle in bundles]
    found = {}
    for name in names[0]:
        files = [_layers_file(bundle, name) for bundle in bundles]
        if name in names[1] and files[0] is not None and files[1] is not None:
            found[name] = diff_layer_files(files[0], files[1])
    missing = {name: "before" for name in names[0] if name not in names[1]}
    missing |= {name: "after" for name in names[1] if name not in names[0]}
    return BundlesDifference(fields, found, missing)


def _facts(bundle: "Bundle") -> dict[str, Any]:
    manifest = bundle.manifest.as_json()
    facts = {key: manifest.get(key) for key in _COMPARED}
    facts["targets"] = {target["name"]: target for target in manifest["targets"]}
    return facts


def _layers_file(bundle: "Bundle", target: str) -> Path | None:
    name = f"engines/{target}/layers.json"
    return bundle.file(name) if name in bundle.manifest.files else None


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, one in value.items():
            found |= _flat(one, (*path, str(key)))
        return found
    return {".".join(path): value}


def _json(path: Path) -> Any:
    where = Place(file=str(path))
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError("TF0753", f"'{path}' cannot be read: {error}", READABLE, where) from error
    except (ValueError, RecursionError) as error:
        raise UsageError("TF0753", f"'{path}' is no JSON: {error}", _LAYERS, where) from error
