"""Writing bundles: whole or not at all, kept when equal, replaced when not."""

import os
import threading

import pytest
from bundle_samples import FILES, digest, draft, snapshot

from trtforge.bundle.manifest import FileFacts, bundle_id
from trtforge.bundle.read import open_bundle
from trtforge.bundle.write import sweep_leftovers, write_bundle
from trtforge.errors import MissingError, UsageError


def test_a_bundle_is_written_and_opens(tmp_path):
    path = write_bundle(tmp_path / "out", draft(), FILES)
    bundle = open_bundle(path)
    assert path.name == f"digits-int8-{bundle.manifest.id}"
    assert snapshot(path).keys() == FILES.keys() | {"manifest.json"}
    for name, content in FILES.items():
        assert bundle.file(name).read_bytes() == content
        assert bundle.manifest.files[name] == FileFacts(sha256=digest(content), bytes=len(content))
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [path.name]


def test_sources_may_be_files(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(5 * 1024 * 1024 + 3))
    path = write_bundle(tmp_path / "out", draft(), FILES | {"model.onnx": source})
    assert open_bundle(path).file("model.onnx").read_bytes() == source.read_bytes()


def test_the_id_counts_content_and_not_reports_logs_or_times(tmp_path):
    first = write_bundle(tmp_path / "a", draft(), FILES)
    changed = FILES | {"reports/parity.json": b"[]", "engines/rtx/build.log": b"other"}
    second = write_bundle(tmp_path / "b", draft(timings={"build:rtx": 9.0}), changed)
    assert first.name == second.name


@pytest.mark.parametrize("name", ["engines/rtx/model.engine", "calibration/cache.json"])
def test_the_id_changes_with_engines_and_calibration(name):
    facts = {path: FileFacts(sha256=digest(body), bytes=len(body)) for path, body in FILES.items()}
    other = facts | {name: FileFacts(sha256=digest(b"other"), bytes=5)}
    assert bundle_id(draft(), facts) != bundle_id(draft(), other)


def test_the_id_changes_with_recipe_and_model():
    recipe = draft().recipe.model_copy(update={"sha256": digest(b"other")})
    model = draft().model.model_copy(update={"digest": f"sha256:{digest(b'other')}"})
    ids = {bundle_id(made, {}) for made in (draft(), draft(recipe=recipe), draft(model=model))}
    assert len(ids) == 3


def test_an_equal_bundle_is_kept(tmp_path):
    path = write_bundle(tmp_path, draft(), FILES)
    before = (path / "manifest.json").stat()
    again = write_bundle(tmp_path, draft(timings={"build:rtx": 0.001}), FILES)
    assert again == path
    after = (path / "manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_different_bundle_of_the_same_id_is_replaced(tmp_path):
    path = write_bundle(tmp_path, draft(), FILES)
    again = write_bundle(tmp_path, draft(), FILES | {"reports/parity.json": b"[1]\n"})
    assert again == path
    assert open_bundle(path).file("reports/parity.json").read_bytes() == b"[1]\n"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_changed_verdicts_replace_the_bundle(tmp_path):
    path = write_bundle(tmp_path, draft(), FILES)
    verdicts = draft().verdicts
    passed = verdicts.model_copy(update={"engine_parity": {"rtx": verdicts.attest}})
    assert write_bundle(tmp_path, draft(verdicts=passed), FILES) == path
    assert open_bundle(path).manifest.verdicts.engine_parity["rtx"].verdict == "pass"


def test_a_damaged_bundle_is_replaced(tmp_path):
    path = write_bundle(tmp_path, draft(), FILES)
    (path / "model.onnx").write_bytes(b"damaged")
    (path / "stranger").write_bytes(b"")
    assert write_bundle(tmp_path, draft(), FILES) == path
    assert open_bundle(path).file("model.onnx").read_bytes() == FILES["model.onnx"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["file", "link", "empty"])
def test_whatever_stands_in_the_way_is_replaced(tmp_path, kind):
    elsewhere = tmp_path / "elsewhere"
    name = write_bundle(elsewhere, draft(), FILES).name
    out = tmp_path / "out"
    out.mkdir()
    if kind == "file":
        (out / name).write_text("not a folder")
    elif kind == "link":
        (out / name).symlink_to(elsewhere / name)
    else:
        (out / name).mkdir()
    open_bundle(write_bundle(out, draft(), FILES))
    assert not (out / name).is_symlink()
    assert [entry.name for entry in out.iterdir()] == [name]
    open_bundle(elsewhere / name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../outside", "'..'"),
        ("a/../../b", "'..'"),
        ("a//b", "empty part"),
        ("./a", "'.'"),
        ("a\\b", "backslash"),
        ("C:a", "colon"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a" * 300, "longer"),
        ("manifest.json", "own file"),
        ("model.sig", "own file"),
        ("RECIPE.yaml", "case or spelling"),
    ],
)
def test_hostile_names_are_refused_before_anything_is_written(tmp_path, name, problem):
    with pytest.raises(UsageError, match=problem):
        write_bundle(tmp_path / "out", draft(), FILES | {name: b"x"})
    assert not (tmp_path / "out").exists()


def test_two_spellings_of_one_name_are_refused(tmp_path):
    composed, decomposed = "caf\u00e9.txt", "cafe\u0301.txt"
    with pytest.raises(UsageError, match="spelling"):
        write_bundle(tmp_path, draft(), FILES | {composed: b"", decomposed: b""})


def test_a_missing_source_leaves_nothing(tmp_path):
    with pytest.raises(MissingError, match=r"cannot read 'gone\.bin'"):
        write_bundle(tmp_path / "out", draft(), FILES | {"x": tmp_path / "gone.bin"})
    assert list((tmp_path / "out").iterdir()) == []


def test_an_engine_that_is_not_shipped_is_a_bug_not_a_bundle(tmp_path):
    files = {name: body for name, body in FILES.items() if not name.endswith(".engine")}
    with pytest.raises(ValueError, match="engine of target 'rtx'"):
        write_bundle(tmp_path, draft(), files)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_dead_writers_are_swept_and_those_of_living_ones_kept(tmp_path):
    with_scratch = tmp_path / "probe"
    write_bundle(with_scratch, draft(), FILES)
    from trtforge.bundle import write

    host = write._host()
    dead = tmp_path / f".writing-{host}-{2**22 + 1}-0.bundle"
    alive = tmp_path / f".writing-{host}-{os.getppid()}-0.bundle"
    foreign = tmp_path / ".writing-00000000-1-0.bundle"
    old = tmp_path / ".replaced-00000000-1-0.bundle"
    other = tmp_path / ".writing-notes"
    for folder in (dead, alive, foreign, old, other):
        folder.mkdir()
        (folder / "file").write_bytes(b"half")
    os.utime(old, (0, 0))
    assert sweep_leftovers(tmp_path) == (old.name, dead.name)
    assert alive.is_dir()
    assert foreign.is_dir()
    assert other.is_dir()


def test_many_writers_at_once_leave_one_sound_bundle(tmp_path):
    failures = []

    def write(number):
        try:
            for _ in range(3):
                changed = FILES | {"reports/parity.json": str(number).encode()}
                write_bundle(tmp_path, draft(), changed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (only,) = tmp_path.iterdir()
    open_bundle(only)


def test_the_manifest_is_the_same_text_for_the_same_build(tmp_path):
    texts = []
    for name in ("a", "b"):
        text = (write_bundle(tmp_path / name, draft(), FILES) / "manifest.json").read_text()
        texts.append([line for line in text.splitlines() if '"created"' not in line])
    assert [line for line in texts[0] if '"digest": "sha' not in line] == [
        line for line in texts[1] if '"digest": "sha' not in line
    ]
