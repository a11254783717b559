"""Opens a bundle: every name, size and digest is checked before anything is handed on.

What is inside an engine file is native code, so nothing of a bundle may reach a runtime before
`open_bundle` has returned.
"""

import difflib
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from trtforge.bundle.manifest import (
    READ_SCHEMAS,
    SCHEMA_PREFIX,
    FileFacts,
    Manifest,
    bundle_id,
    manifest_bytes,
)
from trtforge.bundle.paths import MANIFEST_NAME, SIGNATURE_NAME, shown
from trtforge.errors import IntegrityError, MissingError, Place, UsageError

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
"""A manifest holds some hundred bytes per file; more than this is no manifest of ours."""

CHUNK_BYTES = 4 * 1024 * 1024

_TRACES = ("recipe.yaml", "model.onnx", "engines", "calibration", "reports")
"""What a folder holds that is a bundle even if its manifest is gone."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
    """

    path: Path
    manifest: Manifest

    def file(self, relative: str) -> Path:
        """Return the place of one of the bundle's files.

        Args:
            relative: as in the manifest, e.g. "reports/parity.json".

        Raises:
            UsageError: the bundle has no such file.
        """
        if relative in self.manifest.files:
            return self.path.joinpath(*relative.split("/"))
        near = difflib.get_close_matches(relative, self.manifest.files, n=1)
        raise UsageError(
            "TF0803",
            f"the bundle has no file '{shown(relative)}'",
            hint=f"did you mean '{near[0]}'?" if near else None,
            where=Place(file=str(self.path)),
        )


def open_bundle(path: Path) -> Bundle:
    """Open a bundle after checking all of it.

    Args:
        path: the bundle's folder.

    Raises:
        UsageError: this is no bundle, or one of a format that this version does not know.
        IntegrityError: a file is changed, missing, cut, a link, or not in the manifest, or the
            manifest itself is damaged; the message names the file.
        MissingError: a file cannot be read.
    """
    path = Path(path)
    manifest = read_manifest(path)
    _check_tree(path, manifest)
    for relative, facts in manifest.files.items():
        _check_size(path, relative, facts)
    for relative, facts in manifest.files.items():
        _check_digest(path, relative, facts)
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Read and check a bundle's manifest alone; its files are not looked at.

    Raises:
        UsageError: as `open_bundle`.
        IntegrityError: the manifest is damaged.
        MissingError: it cannot be read.
    """
    content = _manifest_content(path)
    data = _parsed(path, content)
    if "digest" not in data and not str(data.get("schema")).startswith(SCHEMA_PREFIX):
        raise UsageError(
            "TF0802",
            f"'{path.name}' is no trtforge bundle: its manifest.json is another format's",
            hint=_A_BUNDLE,
            where=Place(file=str(path / MANIFEST_NAME)),
        )
    _check_spelling(path, content, data)
    if data["schema"] not in READ_SCHEMAS:
        raise UsageError(
            "TF0804",
            f"the bundle's format is {shown(str(data['schema']))}; this version reads "
            f"{' and '.join(READ_SCHEMAS)}",
            hint="use the version of trtforge that wrote it, or a newer one",
            where=Place(file=str(path / MANIFEST_NAME)),
        )
    return _validated(path, data)


_A_BUNDLE = "name the folder that `trtforge build` printed; it holds a manifest.json"


def _manifest_content(path: Path) -> bytes:
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UsageError("TF0802", f"'{path}' is no bundle: it {what}", _A_BUNDLE, Place(str(path)))
    manifest = path / MANIFEST_NAME
    if not os.path.lexists(manifest):
        if any(os.path.lexists(path / name) for name in _TRACES):
            _damaged(path, MANIFEST_NAME, "it is missing")
        raise UsageError(
            "TF0802",
            f"'{path}' is no bundle: it holds no {MANIFEST_NAME}",
            hint=_A_BUNDLE,
            where=Place(file=str(path)),
        )
    status = manifest.lstat()
    if not stat.S_ISREG(status.st_mode):
        _damaged(path, MANIFEST_NAME, "it is not a regular file")
    if status.st_size > MAX_MANIFEST_BYTES:
        _damaged(path, MANIFEST_NAME, f"{status.st_size} bytes are more than a manifest has")
    try:
        with manifest.open("rb") as reader:
            return reader.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, MANIFEST_NAME, error) from error


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
    except RecursionError as error:
        raise _damage(path, MANIFEST_NAME, "it is nested too deeply") from error
    except ValueError as error:
        raise _damage(path, MANIFEST_NAME, f"it is not sound JSON: {error}") from error
    if not isinstance(data, dict):
        _damaged(path, MANIFEST_NAME, "it is not a JSON object")
    return data


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key '{shown(twice)}' stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_spelling(path: Path, content: bytes, data: dict[str, Any]) -> None:
    """Compare the file with its one right spelling; the digest in it is part of that."""
    try:
        expected = manifest_bytes(data)
    except (ValueError, RecursionError) as error:
        raise _damage(path, MANIFEST_NAME, f"it is not sound JSON: {error}") from error
    if content != expected:
        _damaged(path, MANIFEST_NAME, "it does not match its own digest: it has been changed")
    if "schema" not in data:
        _damaged(path, MANIFEST_NAME, "it names no schema")


def _validated(path: Path, data: dict[str, Any]) -> Manifest:
    body = {key: value for key, value in data.items() if key != "digest"}
    try:
        manifest = Manifest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(shown(str(part)) for part in first["loc"])
        raise _damage(path, MANIFEST_NAME, f"{place or 'it'}: {first['msg']}") from error
    if manifest.id != bundle_id(manifest, manifest.files):
        _damaged(path, MANIFEST_NAME, f"id {manifest.id} does not belong to the digests in it")
    return manifest


def _check_tree(path: Path, manifest: Manifest) -> None:
    folders = {
        "/".join(relative.split("/")[:depth])
        for relative in manifest.files
        for depth in range(1, relative.count("/") + 1)
    }
    found = set()
    for relative, entry in _entries(path, ""):
        if entry.is_symlink():
            _damaged(path, relative, "it is a symbolic link")
        if entry.is_dir(follow_symlinks=False):
            if relative not in folders:
                _damaged(path, relative, "this folder does not belong to the bundle")
        elif not entry.is_file(follow_symlinks=False):
            _damaged(path, relative, "it is not a regular file")
        elif relative in manifest.files:
            found.add(relative)
        elif relative not in (MANIFEST_NAME, SIGNATURE_NAME):
            _damaged(path, relative, "the manifest does not list it")
    for relative in manifest.files:
        if relative not in found:
            _damaged(path, relative, "it is missing")


def _entries(path: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything below `path`, a folder before what is in it, following no link."""
    try:
        with os.scandir(path) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(path, prefix or ".", error) from error
    for entry in entries:
        relative = prefix + entry.name
        yield relative, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), f"{relative}/")


def _check_size(path: Path, relative: str, facts: FileFacts) -> None:
    size = path.joinpath(relative).lstat().st_size
    if size != facts.bytes:
        _damaged(path, relative, f"it has {size} bytes, the manifest says {facts.bytes}")


def _check_digest(path: Path, relative: str, facts: FileFacts) -> None:
    digest = hashlib.sha256()
    try:
        with path.joinpath(relative).open("rb") as reader:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, relative, error) from error
    if digest.hexdigest() != facts.sha256:
        _damaged(
            path,
            relative,
            f"its sha256 is {digest.hexdigest()[:12]}..., the manifest says {facts.sha256[:12]}...",
        )


def _damage(path: Path, relative: str, what: str) -> IntegrityError:
    name = shown(relative)
    return IntegrityError(
        "TF0805",
        f"'{name}' in bundle '{path.name}': {what}",
        hint="do not use this bundle; build it again, or fetch it again from where it came",
        where=Place(file=str(path / name)),
    )


def _damaged(path: Path, relative: str, what: str) -> NoReturn:
    raise _damage(path, relative, what)


def _unreadable(path: Path, relative: str, error: OSError) -> MissingError:
    return MissingError(
        "TF0806",
        f"'{shown(relative)}' in bundle '{path.name}' cannot be read: {error.strerror}",
        hint="give this user the right to read the bundle",
        where=Place(file=str(path / relative)),
    )
