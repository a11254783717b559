"""The one place where writing meets the disk: whole files, and errors that a user can act on."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from trtforge.errors import MissingError, Place, UsageError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
}


@contextlib.contextmanager
def writing(path: Path, what: str | None = None, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError raised while writing into a MissingError (exit 3).

    Args:
        path: shown when the OSError itself names no file.
        what: what was being written, for the message; the path when it is left out.
        hint: remedy when the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise write_error(error, path, what, hint) from error


def write_error(
    error: OSError, path: Path, what: str | None = None, hint: str | None = None
) -> MissingError:
    """Return what a failed write means: TF0301 no space, TF0302 not writable, TF0303 other I/O."""
    what = what or f"'{path}'"
    where = Place(file=str(error.filename or path))
    if error.errno in _NO_SPACE:
        return MissingError(
            "TF0301", f"no space left for {what}", "free some space, or choose another disk", where
        )
    reason = error.strerror or str(error)
    if error.errno in _NOT_WRITABLE:
        return MissingError(
            "TF0302",
            f"cannot write {what}: {reason}",
            hint or "choose a folder that exists and that you may write to",
            where,
        )
    return MissingError("TF0303", f"cannot write {what}: {reason}", hint, where)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: a reader never sees half a file.

    A link is followed, and a file that is replaced hands down its permissions. What is no plain
    file is written to as it is: renaming would replace /dev/null.

    Raises:
        MissingError: no space, or the folder is missing or not writable (exit 3).
    """
    try:
        if is_special(path):
            path.write_bytes(data)
            return
        target = destination(path)
        temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
        try:
            temporary.write_bytes(data)
            sync(temporary)
            keep_permissions(temporary, target)
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:  # which names the temporary file
        raise write_error(OSError(error.errno, error.strerror, str(path)), path) from error


def destination(path: Path) -> Path:
    """Return the file that writing to a path makes or changes: where a link leads."""
    return Path(os.path.realpath(path))


def keep_permissions(temporary: Path, target: Path) -> None:
    """Give a finished file the permissions of the one that it is going to replace, if any."""
    with contextlib.suppress(FileNotFoundError):
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Find out before the work whether files can be written where they shall stand.

    Args:
        outputs: what will be written, None for nothing. Weights of a model that do not fit into it
            go to `<name>.data` beside it.
        inputs: what is read; links and hard links to it are found out.

    Raises:
        UsageError: TF0148, it is a file that is read, or two outputs are one file.
        MissingError: TF0302, it cannot be written.
    """
    read = [path for path in inputs if path is not None]
    written: list[Path] = []
    for path in outputs:
        if path is None:
            continue
        _check_writable(path)
        for target in (path, path.with_name(f"{path.name}.data")):
            _refuse_same(target, read, "would be overwritten, and it is read here")
        _refuse_same(path, written, "would be written twice")
        written.append(path)


def check_folder(path: Path) -> None:
    """Find out before the work whether a folder can be written into, or made, without making it.

    Raises:
        MissingError: TF0302, it cannot.
    """
    folder = path.absolute()
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    _probe(there / ".probe", path)


def _refuse_same(target: Path, others: Iterable[Path], what: str) -> None:
    if not is_special(target) and any(is_same(target, one) for one in others):
        raise UsageError(
            "TF0148",
            f"'{target}' {what}",
            "give the output a name of its own",
            Place(file=str(target)),
        )


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by links or hard links too, or would become one."""
    try:
        return one.samefile(other)
    except OSError:  # one is not there yet
        return destination(one) == destination(other)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise write_error(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), path)
    if not is_special(path):
        _probe(destination(path), path)


def _probe(beside: Path, path: Path) -> None:
    """Make and remove a file beside another; `path` is what messages name."""
    probe = beside.with_name(f".{beside.name}.{os.urandom(4).hex()}")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(OSError(error.errno, error.strerror, str(path)), path) from error


def is_special(path: Path) -> bool:
    """Whether something stands there, or where a link leads, that is neither file nor folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable; folders cannot be synced on Windows."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
