"""The store: content-addressed results of stages, safe to share and safe to kill.

An entry is a folder `objects/<stage>/<key>` that appears by one rename, with an `entry.json`
that holds the sha256 of every file. Whoever reads it checks the digests; a damaged entry is a
miss. One lock per key makes two builds at once do the work once. Folders of killed writers are
recognised by their free lock and swept.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trtforge.disk import sync, writing
from trtforge.errors import MissingError, UsageError

SCHEMA = "trtforge.store/1"
ENTRY_FILE = "entry.json"
LOCK_FILE = ".writer.lock"
_ELSEWHERE = "set TRTFORGE_CACHE to a folder you can write to"
_A_BUILD_MAY_TAKE_S = 24 * 3600.0


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file, read in pieces."""
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """One stored result.

    Attributes:
        stage: the stage's name without its instance (`build`, not `build:rtx`).
        key: sha256 (hex) of the key document.
        path: the folder.
        files: file name -> sha256 (hex).
        seconds: wall time that the stage took when it ran.
        document: the key document itself, for explaining later misses.
    """

    stage: str
    key: str
    path: Path
    files: Mapping[str, str]
    seconds: float
    document: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of one of the entry's files."""
        return self.path / name

    def json(self, name: str) -> Any:
        """Return the content of one of the entry's JSON files."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def default_root() -> Path:
    """Return the store's folder: $TRTFORGE_CACHE, or `trtforge` in the user's cache folder.

    Raises:
        MissingError: TF0302, it lies in a home folder that is not known.
    """
    chosen = os.environ.get("TRTFORGE_CACHE")
    base = chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(base).expanduser().absolute()
    except RuntimeError as error:  # no HOME, and no entry of /etc/passwd
        raise MissingError(
            "TF0302",
            f"there is no home folder for the store '{base}'",
            f"{_ELSEWHERE}, or HOME",
        ) from error
    return folder if chosen else folder / "trtforge"


class Store:
    """The folder of stored results.

    Args:
        root: where it stands; made when missing.
        warn: told about damaged entries that were dropped.

    Raises:
        MissingError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._warn = warn
        with writing(root, "the store", hint=_ELSEWHERE):
            for name in ("objects", "locks", "last", "tmp", "unfinished"):
                (root / name).mkdir(parents=True, exist_ok=True)
        self._sweep()

    @property
    def unfinished(self) -> Path:
        """The folder in which a stage may leave what the next run of the same key goes on from."""
        return self.root / "unfinished"

    def lock(self, key: str) -> FileLock:
        """Return the lock of one key; hold it around get and put."""
        return FileLock(self.root / "locks" / f"{key}.lock")

    def get(self, stage: str, key: str) -> Entry | None:
        """Return the entry when it is there and sound; a damaged one is dropped."""
        folder = self._folder(stage, key)
        if not folder.is_dir():
            return None
        fault, entry = _read_entry(folder, stage, key)
        if entry is None:
            self._warn(f"the stored result of {stage} is damaged ({fault}); it is built again")
            self._discard(folder)
        return entry

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for work in progress; whatever is left in it afterwards is removed."""
        folder = self.root / "tmp" / uuid.uuid4().hex
        with writing(folder, "the store", hint=_ELSEWHERE):
            folder.mkdir()
        lock = FileLock(folder / LOCK_FILE)
        try:
            with lock:
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, stage: str, document: Mapping[str, Any], made: Path, seconds: float) -> Entry:
        """Move a finished folder into the store under its document's key.

        Args:
            stage: the stage's name.
            document: everything that determined the result.
            made: a folder inside `scratch()` that holds the result's files, and nothing else.
            seconds: how long it took.
        """
        key = digest_of(document)
        folder = self._folder(stage, key)
        files = {
            str(path.relative_to(made)): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }
        record = {
            "schema": SCHEMA,
            "stage": stage,
            "key": key,
            "document": document,
            "seconds": seconds,
            "files": files,
        }
        with writing(folder, "the store", hint=_ELSEWHERE):
            (made / ENTRY_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
            for path in made.rglob("*"):
                if path.is_file():
                    sync(path)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                self._discard(folder)
            made.rename(folder)
        digests = {name: str(fact["sha256"]) for name, fact in files.items()}
        return Entry(stage, key, folder, digests, seconds, document)

    def hold(self, entry: Entry, folder: Path) -> Entry:
        """Return an entry whose files stay, whatever others prune or build anew meanwhile.

        Args:
            entry: found or put just now, its lock still held.
            folder: inside `scratch()`; hard links go there. A file system that has none leaves
                the entry as it is.
        """
        held = folder / f"{entry.stage}-{entry.key}"
        try:
            for name in entry.files:
                (held / name).parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # held already, for another target
                    os.link(entry.file(name), held / name)
        except OSError:
            return entry
        return replace(entry, path=held)

    def drop(self, entry: Entry) -> None:
        """Take an entry out again; hold its lock around it."""
        self._discard(entry.path)

    def remember(self, recipe_id: str, documents: Mapping[str, Any]) -> None:
        """Note the key documents of a recipe's last build, to explain the next one's misses."""
        path = self.root / "last" / f"{recipe_id}.json"
        temporary = self.root / "tmp" / uuid.uuid4().hex
        with writing(path, "the store", hint=_ELSEWHERE):
            try:
                temporary.write_text(canonical_json(documents), encoding="utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def recall(self, recipe_id: str) -> dict[str, Any]:
        """Return what `remember` noted, or nothing."""
        try:
            loaded = json.loads((self.root / "last" / f"{recipe_id}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def entries(self) -> list[dict[str, Any]]:
        """Return one row per entry: stage, key, bytes, files and last use (seconds since epoch)."""
        rows = []
        for folder in sorted((self.root / "objects").glob("*/*")):
            with contextlib.suppress(OSError):
                sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
                rows.append(
                    {
                        "stage": folder.parent.name,
                        "key": folder.name,
                        "files": len(sizes),
                        "bytes": sum(sizes),
                        "used": folder.stat().st_mtime,
                    }
                )
        return rows

    def prune(self, *, keep_bytes: int = 0, unused_for_s: float = 0.0) -> tuple[int, int]:
        """Remove entries, the longest unused first, until at most `keep_bytes` are left.

        Args:
            keep_bytes: the size the store may keep.
            unused_for_s: entries used within this many seconds are never removed.

        Returns:
            (number of entries removed, bytes freed). Entries that a build holds are left. What
            failed builds left is removed too once it is a day old.
        """
        rows = sorted(self.entries(), key=lambda row: row["used"])
        left = sum(row["bytes"] for row in rows)
        removed = freed = 0
        now = time.time()
        for row in rows:
            if left <= keep_bytes or now - row["used"] < unused_for_s:
                continue
            lock = self.lock(row["key"])
            with contextlib.suppress(Timeout), lock.acquire(timeout=0):
                self._discard(self._folder(row["stage"], row["key"]))
                removed, freed, left = removed + 1, freed + row["bytes"], left - row["bytes"]
        self._remove_failed_builds(now - max(unused_for_s, _A_BUILD_MAY_TAKE_S))
        return removed, freed

    def _remove_failed_builds(self, before: float) -> None:
        """Remove what failed builds left: jobs and logs in `builds`, files in `unfinished`."""
        for path in self.unfinished.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()
        for folder in (self.root / "builds").glob("*"):
            with contextlib.suppress(OSError):
                if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < before:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / "objects" / stage / key

    def _discard(self, folder: Path) -> None:
        """Take an entry out by one rename first, so that no reader sees half of it."""
        grave = self.root / "tmp" / uuid.uuid4().hex
        with contextlib.suppress(FileNotFoundError):
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what writers that were killed left: the lock of their work folders is free."""
        for folder in (self.root / "tmp").iterdir():
            lock_path = folder / LOCK_FILE
            try:
                if lock_path.exists():
                    with FileLock(lock_path).acquire(timeout=0):
                        pass
                elif time.time() - folder.stat().st_mtime < 60:
                    continue  # just being made, or just being thrown away by someone else
            except (Timeout, OSError):
                continue
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    folder.unlink()


def _read_entry(folder: Path, stage: str, key: str) -> tuple[str, Entry | None]:
    """Return (what is wrong, None) or ("", the entry)."""
    try:
        record = json.loads((folder / ENTRY_FILE).read_bytes())
        if record["schema"] != SCHEMA or record["stage"] != stage or record["key"] != key:
            return f"{ENTRY_FILE} is of another entry", None
        if digest_of(record["document"]) != key:
            return "the key does not match", None
        files = {name: str(fact["sha256"]) for name, fact in record["files"].items()}
        for name, digest in files.items():
            if file_sha256(folder / name) != digest:
                return f"{name} has changed", None
        os.utime(folder)
        return "", Entry(stage, key, folder, files, float(record["seconds"]), record["document"])
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing", None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{ENTRY_FILE} cannot be read", None


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `500MB` or `2GiB`.

    Raises:
        UsageError: it is not a size.
    """
    units = {"": 1, "b": 1}
    for power, letter in enumerate("kmgt", start=1):
        units |= {f"{letter}b": 1000**power, f"{letter}ib": 1024**power, letter: 1024**power}
    number = text.strip().lower().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(
            "TF0101", f"'{text}' is not a size", "write it like 500MB or 2GiB"
        ) from error
