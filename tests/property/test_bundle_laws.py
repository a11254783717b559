"""Whatever happens to one file of a bundle, opening it fails and names a file."""

import shutil

import pytest
from bundle_samples import FILES, draft, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.bundle.paths import path_problem
from trtforge.bundle.read import open_bundle
from trtforge.bundle.write import write_bundle
from trtforge.errors import IntegrityError, UsageError

NAMES = sorted([*FILES, "manifest.json"])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles"), draft(), FILES)


@st.composite
def damages(draw):
    kind = draw(st.sampled_from(["flip", "truncate", "extend", "rename", "remove", "add"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    return kind, draw(st.sampled_from(NAMES)), place, draw(st.integers(1, 255))


def damage(bundle, kind, name, place, value):
    """Damage one file; return False where that is not possible (an empty file has no byte)."""
    path = bundle / name
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if kind in ("flip", "truncate") and not content:
        return False
    if kind == "flip":
        content[at] ^= value
        path.write_bytes(content)
    elif kind == "truncate":
        path.write_bytes(content[:at])
    elif kind == "extend":
        path.write_bytes(content + bytes([value]))
    elif kind == "rename":
        path.rename(path.with_name(f"{path.name}.{value}"))
    elif kind == "remove":
        path.unlink()
    else:
        path.with_name(f"new{value}").write_bytes(content)
    return True


@settings(max_examples=300, deadline=None)
@given(damages())
def test_any_damage_is_an_integrity_error_that_names_a_file(original, tmp_path_factory, what):
    bundle = shutil.copytree(original, tmp_path_factory.mktemp("copy") / original.name)
    if not damage(bundle, *what):
        return
    with pytest.raises(IntegrityError) as caught:
        open_bundle(bundle)
    assert caught.value.exit_status == 7
    there = {*snapshot(bundle), *NAMES}
    assert any(f"'{name}'" in caught.value.message for name in there)
    shutil.rmtree(bundle.parent)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.binary(max_size=20))
def test_any_name_is_either_refused_or_read_back(tmp_path_factory, name, content):
    out = tmp_path_factory.mktemp("out")
    files = FILES | {f"plugins/{name}": content}
    try:
        path = write_bundle(out, draft(), files)
    except UsageError:
        assert list(out.iterdir()) == []
        assert path_problem(f"plugins/{name}") is not None
        return
    assert open_bundle(path).file(f"plugins/{name}").read_bytes() == content
    shutil.rmtree(out)
