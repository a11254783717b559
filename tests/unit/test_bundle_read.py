"""Opening bundles: what is changed, missing, added or hostile is refused and named."""

import json
import os
import shutil

import pytest
from bundle_samples import FILES, draft, snapshot

from trtforge.bundle.manifest import manifest_bytes
from trtforge.bundle.read import open_bundle, read_manifest
from trtforge.bundle.write import write_bundle
from trtforge.errors import IntegrityError, UsageError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles"), draft(), FILES)


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / original.name)


def refused(bundle, name):
    with pytest.raises(IntegrityError) as caught:
        open_bundle(bundle)
    assert caught.value.exit_status == 7
    assert caught.value.code == "TF0805"
    assert f"'{name}'" in caught.value.message
    assert caught.value.where.file.endswith(name)
    return caught.value.message


def rewrite(bundle, **changes):
    """Change the manifest and give it a right digest, as someone who knows the format can."""
    data = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_bytes(manifest_bytes(data | changes))


def test_a_sound_bundle_opens_and_is_not_changed(bundle):
    before = snapshot(bundle)
    assert open_bundle(str(bundle)).manifest.name == "digits-int8"
    assert snapshot(bundle) == before


def test_a_renamed_folder_and_a_link_to_it_open(bundle, tmp_path):
    moved = bundle.rename(tmp_path / "latest")
    open_bundle(moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    open_bundle(link)


def test_a_signature_may_lie_beside_the_manifest(bundle):
    (bundle / "model.sig").write_bytes(b"{}")
    open_bundle(bundle)
    (bundle / "engines" / "model.sig").write_bytes(b"{}")
    refused(bundle, "engines/model.sig")


@pytest.mark.parametrize("name", sorted(name for name, content in FILES.items() if content))
def test_a_changed_file_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    assert "sha256" in refused(bundle, name)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_longer_file_is_named_with_both_sizes(bundle, name):
    with (bundle / name).open("ab") as stream:
        stream.write(b"x")
    assert f"{len(FILES[name]) + 1} bytes, the manifest says {len(FILES[name])}" in refused(
        bundle, name
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    assert "missing" in refused(bundle, name)


@pytest.mark.parametrize(
    "name", ["notes.txt", "engines/rtx/plugin.so", ".hidden", "manifest2.json"]
)
def test_an_added_file_is_named(bundle, name):
    (bundle / name).write_bytes(b"")
    assert "does not list it" in refused(bundle, name)


def test_an_added_folder_is_named(bundle):
    (bundle / "plugins").mkdir()
    refused(bundle, "plugins")


def test_a_file_where_a_folder_should_be_is_named(bundle):
    shutil.rmtree(bundle / "engines")
    (bundle / "engines").write_bytes(b"")
    refused(bundle, "engines")


def test_a_folder_where_a_file_should_be_is_named(bundle):
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").mkdir()
    refused(bundle, "model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "recipe.yaml", "engines/rtx/model.engine"])
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(bundle, tmp_path, name):
    (bundle / name).rename(tmp_path / "right")
    (bundle / name).symlink_to(tmp_path / "right")
    assert "symbolic link" in refused(bundle, name)


def test_a_linked_folder_is_refused(bundle, tmp_path):
    (bundle / "engines").rename(tmp_path / "engines")
    (bundle / "engines").symlink_to(tmp_path / "engines")
    assert "symbolic link" in refused(bundle, "engines")


def test_a_linked_manifest_is_refused(bundle, tmp_path):
    (bundle / "manifest.json").rename(tmp_path / "m")
    (bundle / "manifest.json").symlink_to(tmp_path / "m")
    refused(bundle, "manifest.json")


def test_a_pipe_is_refused_and_not_read(bundle):
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    assert "regular file" in refused(bundle, "model.onnx")


def test_a_removed_manifest_is_named(bundle):
    (bundle / "manifest.json").unlink()
    assert "missing" in refused(bundle, "manifest.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not sound JSON"),
        (b"{", "not sound JSON"),
        (b"\xff\xfe{}", "not sound JSON"),
        (b"[]", "not a JSON object"),
        (b'{"schema": "trtforge.bundle/1", "schema": "trtforge.bundle/1"}', "stands twice"),
        (b'{"schema": "trtforge.bundle/1", "x": NaN}', "NaN is not JSON"),
        (b'{"schema": "trtforge.bundle/1", "x": 1e999}', "not sound JSON"),
        (b'{"schema": "trtforge.bundle/1", "x": "\\ud800"}', "changed"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not sound JSON"),
        (b" " * (16 * 1024 * 1024 + 1), "more than a manifest has"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_malformed_manifest_is_refused(bundle, content, said):
    (bundle / "manifest.json").write_bytes(content)
    assert said in refused(bundle, "manifest.json")


def test_a_manifest_with_a_hundred_thousand_keys_is_refused_quickly(bundle):
    keys = ",".join(f'"k{number}":0' for number in range(100_000))
    (bundle / "manifest.json").write_bytes(f'{{{keys},"k99999":0}}'.encode())
    assert "'k99999' stands twice" in refused(bundle, "manifest.json")


def test_an_edited_verdict_is_noticed(bundle):
    text = (bundle / "manifest.json").read_text()
    assert '"not_run"' in text
    (bundle / "manifest.json").write_text(text.replace('"not_run"', '"pass"'))
    assert "changed" in refused(bundle, "manifest.json")


def test_reformatting_the_manifest_is_noticed(bundle):
    data = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(data))
    refused(bundle, "manifest.json")


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/hostname", "a\\b", "a\0b", "x/../../y", "", "C:/x", "manifest.json"],
)
def test_hostile_names_in_the_manifest_are_refused(bundle, name):
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    rewrite(bundle, files=files | {name: files["model.onnx"]})
    refused(bundle, "manifest.json")


def test_names_that_differ_in_case_only_are_refused(bundle):
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    rewrite(bundle, files=files | {"MODEL.onnx": files["model.onnx"]})
    assert "case or spelling" in refused(bundle, "manifest.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "00000000"},
        {"id": "XYZ"},
        {"unknown": 1},
        {"files": {}},
        {"files": []},
        {"created": "yesterday"},
        {"targets": "rtx"},
        {"name": "../x"},
    ],
    ids=str,
)
def test_wrong_values_in_the_manifest_are_refused(bundle, changes):
    rewrite(bundle, **changes)
    refused(bundle, "manifest.json")


@pytest.mark.parametrize("size", [-1, 1.5, "12", True, 2**70])
def test_wrong_sizes_are_refused(bundle, size):
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["model.onnx"]["bytes"] = size
    rewrite(bundle, files=files)
    refused(bundle, "model.onnx" if size == 2**70 else "manifest.json")


@pytest.mark.parametrize("schema", ["trtforge.bundle/3", "trtforge.bundle/999"])
def test_a_newer_format_is_a_usage_error_that_names_both(bundle, schema):
    rewrite(bundle, schema=schema)
    with pytest.raises(
        UsageError, match=f"{schema}; this version reads trtforge.bundle/1 and trtforge.bundle/2"
    ) as caught:
        open_bundle(bundle)
    assert caught.value.exit_status == 2


def test_a_bundle_of_the_first_format_is_read_and_says_no_more_than_it_knows(bundle):
    data = json.loads((bundle / "manifest.json").read_text())
    assert data["schema"] == "trtforge.bundle/2"
    precision = data["precision"]
    assert (precision.pop("io_types"), len(precision.pop("force"))) == ("convert", 1)
    rewrite(bundle, schema="trtforge.bundle/1", precision=precision)
    facts = open_bundle(bundle).manifest.precision
    assert (facts.force, facts.io_types, facts.quantize) == (None, None, "int8")


def test_folders_and_files_that_are_no_bundle_are_usage_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "web app"}')
    (tmp_path / "file").write_text("")
    for name, said in (
        ("gone", "does not exist"),
        ("empty", "holds no manifest.json"),
        ("other", "another format"),
        ("file", "not a folder"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            open_bundle(tmp_path / name)
        assert caught.value.exit_status == 2


def test_a_file_that_the_bundle_lacks_is_a_usage_error(bundle):
    with pytest.raises(UsageError, match=r"no file 'model\.onx'") as caught:
        open_bundle(bundle).file("model.onx")
    assert caught.value.hint == "did you mean 'model.onnx'?"


def test_the_manifest_alone_can_be_read(bundle):
    (bundle / "model.onnx").unlink()
    assert read_manifest(bundle).name == "digits-int8"
