"""Whatever the bytes, loading a recipe gives a recipe or a RecipeError that can be shown."""

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.errors import RecipeError
from trtforge.recipe import scalars
from trtforge.recipe.laws import recipe_laws
from trtforge.recipe.load import LoadedRecipe, dump_recipe, load_recipe
from trtforge.recipe.render import render_problem
from trtforge.recipe.schema import Recipe

GOOD = (Path(__file__).parents[2] / "recipes" / "digits" / "int8.yaml").read_bytes()
SNIPPETS = [
    b"\t", b"\n", b"\r", b"\0", b"\xff", b"&a ", b"*a", b"<<: ", b"!!str ", b"{", b"}", b"[", b"]",
    b"? ", b": ", b"- ", b"'", b'"', b"|\n", b">\n", b"%YAML 1.1\n", b"---\n", b"...\n", b"#",
    b"\\", b"null", b"true", b"on", b"1e999", b".inf", b"0x10", b"010", b"9" * 30, b"\xe2\x80\xa8",
    b"\xc2\x85", b"\xef\xbb\xbf", b"version: 1\n", b"  ", b"@", b"`", b",",
]  # fmt: skip


def load_bytes(content: bytes, overrides: tuple[str, ...] = ()) -> LoadedRecipe | RecipeError:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(content)
        try:
            return load_recipe(path, overrides, check_files=False)
        except RecipeError as error:
            return error


def check(result: LoadedRecipe | RecipeError) -> None:
    if isinstance(result, LoadedRecipe):
        assert result.recipe.version == 1
        return
    assert result.exit_status == 2
    for problem in result.problems:
        shown = render_problem(problem)
        assert shown.startswith(f"error[{problem.code}]: ")
        assert problem.hint
        shown.encode("utf-8")
        where = problem.where
        if where.line is not None:
            assert 1 <= where.column <= len(where.text) + 1
            assert where.length >= 1


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    content = GOOD
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 12)))
        content = content[:start] + draw(st.sampled_from([b"", *SNIPPETS])) + content[end:]
    return content


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_random_bytes(content):
    check(load_bytes(content))


@given(st.text(max_size=100))
@settings(max_examples=150, deadline=None)
def test_random_text(text):
    check(load_bytes(text.encode("utf-8", "surrogatepass")))


@given(mutations())
@settings(max_examples=150, deadline=None)
def test_mutated_recipes(content):
    check(load_bytes(content))


@given(st.lists(st.sampled_from(SNIPPETS), max_size=30).map(b"".join))
@settings(max_examples=150, deadline=None)
def test_heaps_of_yaml_syntax(content):
    check(load_bytes(content))


@given(st.lists(st.text(max_size=30), max_size=3).map(tuple))
@settings(max_examples=100, deadline=None)
def test_random_overrides(overrides):
    check(load_bytes(GOOD, overrides))


@given(
    st.sampled_from(["model", "shapes", "targets.0", "verify.outputs", "precision.keep", "passes"]),
    st.text(st.characters(categories=["L", "N", "P"]), max_size=8),
    st.sampled_from(["{}", "[]", "[[1]]", "null", "1", "x", "{a: {b: [1]}}", "[{}]"]),
)
@settings(max_examples=150, deadline=None)
def test_overrides_of_real_places(path, key, value):
    check(load_bytes(GOOD, (f"{path}.{key}={value}", f"{path}={value}")))


@given(
    st.dictionaries(
        st.sampled_from(
            ["shapes", "targets", "precision", "verify", "calibration", "model", "passes"]
        ),
        json_values,
    )
)
@settings(max_examples=100, deadline=None)
def test_laws_take_any_data(data):
    for broken in recipe_laws(data):
        assert broken.message
        assert broken.hint


names = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable())


@given(names, names, st.floats(allow_nan=False, allow_infinity=False, min_value=0))
@settings(max_examples=150, deadline=None)
def test_resolved_text_gives_every_value_back(output, path, bound):
    if not path.strip():
        return
    recipe = Recipe(
        version=1,
        name="x",
        model={"onnx": path},
        targets=({"name": "cpu", "backend": "onnxruntime"},),
        verify={"outputs": {output: {"max_abs": bound}}},
    )
    loaded = load_bytes(dump_recipe(recipe).encode())
    assert isinstance(loaded, LoadedRecipe), loaded.problems
    assert loaded.recipe == recipe


@given(st.integers(-(10**20), 10**20))
def test_integers_are_read_as_written(value):
    assert scalars.resolve(str(value)) == value


@pytest.mark.parametrize("piece", [b"[", b"{", b"a: ", b"- ", b"\n", b"&a ", b"'", b"? "])
def test_hostile_megabytes_end_soon(piece):
    started = time.monotonic()
    check(load_bytes(piece * (999_999 // len(piece))))
    assert time.monotonic() - started < 20
