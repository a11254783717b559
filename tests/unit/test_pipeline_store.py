"""The store: hits, damage, sharing, sweeping, pruning."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from trtforge.errors import MissingError, UsageError
from trtforge.pipeline.store import Store, default_root, digest_of, parse_size


def put(store: Store, document: dict, text: str = "result") -> str:
    with store.scratch() as scratch:
        made = scratch / "made"
        made.mkdir()
        (made / "result.txt").write_text(text)
        return store.put("demo", document, made, 1.5).key


def test_what_was_put_is_found_under_its_document(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = put(store, {"a": 1})
    entry = store.get("demo", digest_of({"a": 1}))
    assert entry is not None
    assert entry.key == key
    assert entry.file("result.txt").read_text() == "result"
    assert entry.seconds == 1.5
    assert store.get("demo", digest_of({"a": 2})) is None
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["change", "truncate", "remove", "bad-json", "no-entry", "other-key"]
)
def test_a_damaged_entry_is_a_miss_with_a_warning(tmp_path: Path, damage: str) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warn=warnings.append)
    key = put(store, {"a": 1})
    folder = tmp_path / "objects" / "demo" / key
    match damage:
        case "change":
            (folder / "result.txt").write_text("tampered")
        case "truncate":
            (folder / "result.txt").write_text("")
        case "remove":
            (folder / "result.txt").unlink()
        case "bad-json":
            (folder / "entry.json").write_text("{")
        case "no-entry":
            (folder / "entry.json").unlink()
        case "other-key":
            record = json.loads((folder / "entry.json").read_text())
            record["document"] = {"a": 2}
            (folder / "entry.json").write_text(json.dumps(record))
    assert store.get("demo", key) is None
    assert len(warnings) == 1
    assert "demo" in warnings[0]
    assert not folder.exists()
    assert put(store, {"a": 1}) == key
    assert store.get("demo", key) is not None


def _hold_scratch(root: str, ready: "multiprocessing.synchronize.Event") -> None:
    with Store(Path(root)).scratch() as scratch:
        (scratch / "half.bin").write_bytes(b"x" * 1000)
        ready.set()
        time.sleep(60)


def test_a_killed_writer_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold_scratch, args=(str(tmp_path), ready))
    process.start()
    try:
        assert ready.wait(30)
        Store(tmp_path)
        assert len(list((tmp_path / "tmp").iterdir())) == 1, "a living writer's folder was swept"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        Store(tmp_path)
        assert list((tmp_path / "tmp").iterdir()) == []
    finally:
        process.kill()


def test_the_last_documents_are_recalled_and_damage_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember("r", {"stage": {"a": 1}})
    assert store.recall("r") == {"stage": {"a": 1}}
    (tmp_path / "last" / "r.json").write_text("[")
    assert store.recall("r") == {}
    assert store.recall("other") == {}


def test_prune_removes_the_longest_unused_first_and_leaves_what_is_locked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [put(store, {"n": n}, "x" * 1000) for n in range(3)]
    for age, key in zip((300, 200, 100), keys, strict=True):
        folder = tmp_path / "objects" / "demo" / key
        os.utime(folder, (time.time() - age, time.time() - age))
    total = sum(row["bytes"] for row in store.entries())
    with Store(tmp_path).lock(keys[0]):
        removed, _ = store.prune(keep_bytes=total // 2)
        assert removed == 2
        assert [row["key"] for row in store.entries()] == [keys[0]]
    assert store.prune(unused_for_s=3600) == (0, 0)
    assert store.prune()[0] == 1
    assert store.entries() == []


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError) as caught:
        Store(tmp_path / "file")
    assert caught.value.code == "TF0302"
    assert "TRTFORGE_CACHE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500MB", 500_000_000), ("2GiB", 2 << 30), (" 1.5 kb ", 1500), ("7", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5XB", "1e999GB", "-", "five"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_prune_removes_what_failed_builds_left_once_it_is_old(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, age_s in (("old", 2 * 86400), ("new", 60)):
        folder = tmp_path / "builds" / name
        folder.mkdir(parents=True)
        (folder / "build.log").write_text("log")
        for path in (folder / "build.log", folder):
            os.utime(path, (time.time() - age_s, time.time() - age_s))
    store.prune()
    assert [path.name for path in (tmp_path / "builds").iterdir()] == ["new"]


def test_prune_removes_unfinished_work_once_it_is_old(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, age_s in (("old", 2 * 86400), ("new", 60)):
        path = store.unfinished / name
        path.write_text("{}")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    store.prune()
    assert [path.name for path in store.unfinished.iterdir()] == ["new"]


def test_what_could_not_be_noted_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "last" / "r.json").mkdir()
    with pytest.raises(MissingError) as caught:
        store.remember("r", {})
    assert caught.value.code == "TF0302"
    assert "TRTFORGE_CACHE" in (caught.value.hint or "")
    assert list((tmp_path / "tmp").iterdir()) == []
    left = tmp_path / "tmp" / "of-a-killed-writer"
    left.write_text("")
    os.utime(left, (0, 0))
    Store(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("variable", ["TRTFORGE_CACHE", "XDG_CACHE_HOME"])
def test_a_home_folder_that_is_not_known(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRTFORGE_CACHE", raising=False)
    monkeypatch.setenv(variable, "~nobody-of-this-name/cache")
    with pytest.raises(MissingError) as caught:
        default_root()
    assert caught.value.code == "TF0302"
    assert "TRTFORGE_CACHE" in str(caught.value.hint)
