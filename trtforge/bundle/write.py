"""Writes a bundle so that its folder is either whole or not there.

Files go to a hidden folder beside the destination, every byte and the folder are synced, and a
rename puts it in place. A writer that dies leaves only its hidden folder, which the next writer
removes.
"""

import datetime
import errno
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from trtforge.bundle.manifest import FileFacts, Manifest, ManifestDraft, bundle_id, manifest_bytes
from trtforge.bundle.paths import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    folded,
    path_problem,
    shown,
)
from trtforge.bundle.read import open_bundle
from trtforge.disk import sync, writing
from trtforge.errors import ForgeError, MissingError, Place, UsageError

CHUNK_BYTES = 4 * 1024 * 1024
MAX_ATTEMPTS = 100
ABANDONED_AFTER_S = 24 * 3600.0

_NUMBERS = count()
"""Never the same number twice in a process: a thread must not clean up another one's folder."""

_LEFTOVER = re.compile(r"\.(?:writing|replaced)-([0-9a-f]{8})-(\d+)-\d+\.bundle")

Sources = Mapping[str, Path | bytes]


def write_bundle(dest_parent: Path, draft: ManifestDraft, files: Sources) -> Path:
    """Write a bundle into `dest_parent`, under `<name>-<id>`.

    An equal bundle that stands there already and is intact is kept; a different or damaged one is
    replaced.

    Args:
        dest_parent: the folder that holds bundles; made when missing.
        draft: the manifest without the files.
        files: path inside the bundle ("engines/rtx/engine") -> the file to copy, or its bytes.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: a path must not stand in a bundle.
        MissingError: no space, or the folder cannot be written to, or a source is gone; nothing is
            left behind.
    """
    _check_names(files)
    with writing(dest_parent, "the bundle"):
        dest_parent.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(dest_parent)
    with _scratch_folder(dest_parent) as scratch:
        facts = _copy_all(scratch, files)
        manifest = Manifest(
            **dict(draft),
            id=bundle_id(draft, facts),
            created=_now(),
            files=facts,
        )
        destination = dest_parent / manifest.folder_name
        if _equal_bundle_at(destination, manifest):
            return destination
        with writing(destination, "the bundle"):
            _write(scratch / MANIFEST_NAME, manifest_bytes(manifest.as_json()))
            _sync_folders(scratch)
            _put_in_place(scratch, destination)
            sync(dest_parent)
    return destination


def sweep_leftovers(parent: Path) -> tuple[str, ...]:
    """Remove the hidden folders of writers that no longer run; return their names."""
    removed = []
    for entry in sorted(parent.iterdir()):
        match = _LEFTOVER.fullmatch(entry.name)
        if match is not None and _is_abandoned(entry, match[1], int(match[2])):
            _remove(entry)
            removed.append(entry.name)
    return tuple(removed)


def _check_names(files: Sources) -> None:
    seen: dict[str, str] = {}
    for path in files:
        problem = path_problem(path)
        if problem is None and path in (MANIFEST_NAME, SIGNATURE_NAME):
            problem = "the bundle's own file has this name"
        if problem is None and folded(path) in seen:
            problem = f"it differs from '{shown(seen[folded(path)])}' in case or spelling only"
        if problem is not None:
            message = f"'{shown(path)}' cannot be put into a bundle: {problem}"
            raise UsageError("TF0801", message, "rename it")
        seen[folded(path)] = path


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    with writing(parent, "the bundle"):
        scratch = _fresh_name(parent, "writing")
        scratch.mkdir()
    try:
        yield scratch
    finally:
        _remove(scratch)


def _fresh_name(parent: Path, purpose: str) -> Path:
    """Return a name that this process has not used yet and that nothing has."""
    stem = f".{purpose}-{_host()}-{os.getpid()}"
    names = (parent / f"{stem}-{number}.bundle" for number in _NUMBERS)
    return next(path for path in names if not os.path.lexists(path))


def _copy_all(scratch: Path, files: Sources) -> dict[str, FileFacts]:
    facts = {}
    for path in sorted(files):
        target = scratch / path
        source = files[path]
        with writing(target, "the bundle"):
            target.parent.mkdir(parents=True, exist_ok=True)
        facts[path] = (
            _copy_bytes(source, target) if isinstance(source, bytes) else _copy_file(source, target)
        )
    return facts


def _copy_bytes(content: bytes, target: Path) -> FileFacts:
    with writing(target, "the bundle"):
        _write(target, content)
    return FileFacts(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _copy_file(source: Path, target: Path) -> FileFacts:
    digest, size = hashlib.sha256(), 0
    try:
        reader = source.open("rb")
    except OSError as error:
        raise MissingError(
            "TF0303",
            f"cannot read '{source.name}' for the bundle: {error.strerror}",
            "build again: what is missing or damaged in the store is made anew",
            where=Place(file=str(source)),
        ) from error
    with reader, writing(target, "the bundle"), target.open("xb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return FileFacts(sha256=digest.hexdigest(), bytes=size)


def _write(target: Path, content: bytes) -> None:
    with target.open("xb") as writer:
        writer.write(content)
        writer.flush()
        os.fsync(writer.fileno())


def _equal_bundle_at(destination: Path, manifest: Manifest) -> bool:
    if not destination.is_dir() or destination.is_symlink():
        return False
    try:
        standing = open_bundle(destination).manifest
    except (ForgeError, OSError):  # damaged, or another writer is just replacing it
        return False
    return standing.content() == manifest.content()


def _put_in_place(scratch: Path, destination: Path) -> None:
    """Rename the finished folder to its place, moving what stands there out of the way first.

    A folder that is not empty cannot be replaced by one rename, so for an instant the name is
    free; when another writer takes it in that instant, this one tries again.
    """
    for _ in range(MAX_ATTEMPTS):
        aside = _set_aside(destination)
        try:
            scratch.rename(destination)
        except OSError as error:
            # Whoever took the name may have been replaced again by now: the error itself counts.
            is_full = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            taken = is_full or os.path.lexists(destination)
            if aside is not None and not taken:
                aside.rename(destination)
            elif aside is not None:
                _remove(aside)
            if not taken:
                raise
            continue
        if aside is not None:
            _remove(aside)
        return
    raise FileExistsError(errno.EEXIST, "others keep writing this bundle", str(destination))


def _set_aside(destination: Path) -> Path | None:
    aside = _fresh_name(destination.parent, "replaced")
    try:
        destination.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def _sync_folders(top: Path) -> None:
    for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
        sync(folder)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(folder: Path, host: str, pid: int) -> bool:
    """Say whether the writer of a scratch folder is gone: its process, or all of a day."""
    try:
        age_s = time.time() - folder.lstat().st_mtime
    except FileNotFoundError:
        return False
    return age_s > ABANDONED_AFTER_S or (host == _host() and not _is_running(pid))


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill ends the process whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    """Return 8 hexadecimal digits for this host: a process id means nothing on another one."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
