"""Python code as data: module:name beside the recipe, Polygraphy's scripts; its failures."""

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from source_samples import linear, measured, opened, refused, rows, saved, tokens

from trtforge.precision.calibrate import CalibrationRequest, calibrate

SAMPLES = """
import numpy as np
def samples():
    for number in range(5):
        yield {"x": np.arange(number, number + 4, dtype=np.float32)}
"""


def write(folder: Path, text: str, name: str = "data.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def body(text: str) -> str:
    """A module whose function `samples` has this body."""
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    return f"import numpy as np\ndef samples():\n{lines}\n"


PYTHON = {"data": {"python": "data:samples"}}


def test_a_module_beside_the_recipe(tmp_path: Path) -> None:
    source = opened(write(tmp_path, SAMPLES), linear(), PYTHON)
    assert source.count == 5
    assert [row[0] for row in rows(source, "x")] == list(range(5))
    assert [len(feeds["x"]) for feeds in source.batches(2, start=1)] == [2, 2]
    assert (source.description, source.is_synthetic) == ("data:samples", False)
    assert measured(linear(), source) == (0, 7)


@pytest.mark.parametrize(
    "section",
    ["load.py", {"script": "load.py"}, {"script": "load.py", "function": "other"}],
)
def test_polygraphy_scripts(tmp_path: Path, section: object) -> None:
    text = SAMPLES.replace("samples", "load_data") + "other = load_data\n"
    source = opened(write(tmp_path, text, "load.py"), linear(), {"data": section})
    assert measured(linear(), source) == (0, 7)
    assert source.description in ("load.py:load_data", "load.py:other")


def test_polygraphy_runs_the_same_script(tmp_path: Path) -> None:
    from polygraphy import mod

    write(tmp_path, SAMPLES.replace("samples", "load_data"), "load.py")
    theirs = mod.import_from_script(str(tmp_path / "load.py"), "load_data")()
    ours = opened(tmp_path, linear(), "load.py").batches(1)
    for one, other in zip(theirs, ours, strict=True):
        assert np.array_equal(one["x"], other["x"][0])


@pytest.mark.parametrize(
    "text",
    [
        body("return [np.ones((2, 4), np.float32), np.ones(4, np.float32)]"),
        body("return np.ones((3, 4), np.float32)"),
        body("for _ in range(3): yield {'x': [1.0, 1.0, 1.0, 1.0], 'labels': 3}"),
        "import numpy as np\nsamples = [{'x': np.ones((1, 4))}, {'x': np.ones((2, 4))}]",
        "import numpy as np\nclass samples:\n  def __iter__(self):\n    yield np.ones((3, 4))",
        "import numpy as np\nclass One:\n"
        "  def __getitem__(self, i):\n    if i > 2: raise IndexError\n"
        "    return np.ones(4, np.float32)\nsamples = One()",
        "class T:\n  def __array__(self, dtype=None, copy=None):\n    import numpy as np\n"
        "    return np.ones((3, 4), np.float32)\nsamples = [T()]",
    ],
)
def test_any_iterable_of_samples_or_batches_will_do(tmp_path: Path, text: str) -> None:
    source = opened(write(tmp_path, text), linear(), PYTHON)
    assert rows(source, "x") == [[1.0] * 4] * 3
    digest = opened(write(tmp_path, body("yield np.ones((3, 4))")), linear(), PYTHON).digest
    assert source.digest == digest, "the digest is of the samples, however they are given"


def test_two_inputs_of_any_length(tmp_path: Path) -> None:
    text = body(
        "for n in (3, 3, 5):\n"
        "    yield {'ids': np.full(n, n, np.int32), 'mask': np.ones((1, n), bool)}"
    )
    source = opened(write(tmp_path, text), tokens(), PYTHON)
    assert [feeds["ids"].shape for feeds in source.batches(8)] == [(2, 3), (1, 5)]
    measured(tokens(), source)
    error = refused(write(tmp_path, body("yield np.zeros(3, int)")), tokens(), PYTHON)
    assert (error.code, error.hint) == ("TF0503", "yield a dict: {'ids': array, 'mask': array}")


def test_an_endless_generator_needs_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, body("while True: yield np.ones(4, np.float32)"))
    source = opened(tmp_path, linear(), PYTHON | {"samples": 7})
    assert source.count == 7
    assert len(rows(source, "x", 3)) == 7
    monkeypatch.setattr("trtforge.graph.sources.items._MOST", 50)
    error = refused(tmp_path, linear(), PYTHON)
    assert error.code == "TF0545"
    assert "calibration.samples" in str(error.hint)


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    text = body("for n in range(3): yield np.full(4, n, np.float32)\nraise ValueError('too far')")
    source = opened(write(tmp_path, text), linear(), PYTHON | {"samples": 3})
    assert len(rows(source, "x")) == 3
    assert refused(tmp_path, linear(), PYTHON).code == "TF0541"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("other = 1", "TF0542", "has nothing of the name 'samples'"),
        ("samples = 3", "TF0542", "gives a int, not samples"),
        ("samples = iter([1])", "TF0542", "can be read only once"),
        (body("return {'x': np.ones(4)}"), "TF0542", "gives a dict, not samples"),
        (body("return 'abc'"), "TF0542", "gives a str"),
        (body("yield 'abc'"), "TF0503", "a str is no sample"),
        (body("yield {'x': 'abc'}"), "TF0509", "not numbers"),
        (body("yield {'x': [[1], [2, 3]]}"), "TF0509", "cannot be read as numbers"),
        (body("yield {'z': 1}"), "TF0503", "array 'z' is no input"),
        (body("yield {'x': np.zeros(5)}"), "TF0504", "sample 0: dimension 1 of array 'x' is 5"),
        (
            body("yield np.zeros(4)\nyield np.zeros((1, 1, 4))"),
            "TF0504",
            "sample 1: array 'x' has 3",
        ),
        (body("yield np.zeros(4, np.int64)"), "TF0505", "sample 0: array 'x' is int64"),
        (body("yield {'x': np.zeros((0, 4))}"), "TF0506", "no samples"),
        (body("return []"), "TF0506", "no samples"),
        (body("yield np.zeros(4)\nyield np.full(4, np.inf)"), "TF0507", "in sample 1"),
        (body("raise KeyError('k')"), "TF0541", "failed: KeyError: 'k'"),
        (body("raise SystemExit(3)"), "TF0541", "failed: SystemExit: 3"),
        ("import no_such_package_x", "TF0541", "No module named 'no_such_package_x'"),
        ("def broken(:", "TF0541", "SyntaxError"),
    ],
)
def test_code_that_gives_no_samples(tmp_path: Path, text: str, code: str, message: str) -> None:
    for section in (PYTHON, {"data": {"script": "data.py", "function": "samples"}}):
        error = refused(write(tmp_path, text), linear(), section)
        assert error.code == code
        assert message in error.message


def test_a_failure_names_the_line(tmp_path: Path) -> None:
    write(tmp_path, body("yield np.zeros(4)\nraise ValueError('no such row')"))
    error = refused(tmp_path, linear(), PYTHON)
    assert error.where is not None
    assert (error.where.file, error.where.line) == (str(tmp_path / "data.py"), 4)
    assert "no such row" in error.message
    assert str(error.details).startswith(f'  File "{tmp_path / "data.py"}", line 4, in samples')
    write(tmp_path, "import numpy\ndef broken(:")
    assert str(refused(tmp_path, linear(), PYTHON).where) == f"{tmp_path / 'data.py'}:2:12"
    write(tmp_path, "from missing_one import x")
    assert "install 'missing_one'" in str(refused(tmp_path, linear(), PYTHON).hint)


def test_a_library_that_fails_is_named_where_the_user_called_it(tmp_path: Path) -> None:
    write(tmp_path, body("yield np.zeros(4)\nnp.concatenate([])"))
    error = refused(tmp_path, linear(), PYTHON)
    assert str(error.where) == f"{tmp_path / 'data.py'}:4"
    assert "need at least one array" in error.message


def test_shards_and_interrupted_runs_read_on(tmp_path: Path) -> None:
    source = opened(write(tmp_path, SAMPLES), linear(), PYTHON)
    whole = calibrate(linear(), source, CalibrationRequest(("x", "y"), "entropy"))
    parts = [
        calibrate(linear(), source, CalibrationRequest(("x", "y"), "entropy", shard=(n, 2)))
        for n in range(2)
    ]
    assert [part.data[0].spans for part in parts] == [((0, 2),), ((2, 5),)]
    assert {part.data[0].digest for part in parts} == {whole.data[0].digest}
    low, high = (part.ranges["y"].max for part in parts)
    assert (low, high) == (10, whole.ranges["y"].max)


def test_an_iterator_that_is_used_up_is_noticed(tmp_path: Path) -> None:
    text = "import numpy as np\nonce = iter([np.zeros(4), np.ones(4)])\ndef samples(): return once"
    source = opened(write(tmp_path, text), linear(), PYTHON)
    with pytest.raises(Exception, match="first pass gave 2 samples and the next one 0"):
        measured(linear(), source)


def test_other_samples_each_time_are_noticed_at_the_first(tmp_path: Path) -> None:
    text = "import numpy as np\nseen = []\n" + (
        "def samples():\n    seen.append(1)\n"
        "    for n in range(9): yield np.full(4, n if n < 6 else n + len(seen), np.float32)\n"
    )
    source = opened(write(tmp_path, text), linear(), PYTHON)
    assert len(list(source.batches(1, limit=6))) == 6
    with pytest.raises(Exception, match="sample 6 is another one in the next pass"):
        measured(linear(), source)


def test_nothing_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "import beside\n" + body("print('hello')\nimport late\nyield np.zeros(4)"))
    write(write(tmp_path, "", "beside.py"), "", "late.py")
    path, writes = list(sys.path), sys.dont_write_bytecode
    rows(opened(tmp_path, linear(), PYTHON), "x")
    assert (sys.path, sys.dont_write_bytecode) == (path, writes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside.py", "data.py", "late.py"]
    assert capsys.readouterr().out == "", "stdout is for results"


def test_modules_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for value in (1, 2):
        folder = write(tmp_path / str(value), "", "pack/__init__.py")
        write(folder, body(f"yield np.full(4, {value}, np.float32)"), "pack/data.py")
        source = opened(folder, linear(), {"data": {"python": "pack.data:samples"}})
        assert rows(source, "x") == [[value] * 4]


def test_memory_is_flat(tmp_path: Path) -> None:
    write(tmp_path, body("for n in range(2000): yield np.full(10_000, n, np.float32)"))
    tracemalloc.start()
    source = opened(tmp_path, linear(width=10_000), PYTHON)
    assert sum(1 for _ in source.batches(8)) == 250
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000, "the samples together are 80 MB"


def save_json(feeds: object, path: Path) -> None:
    from polygraphy.json import save_json as save

    path.parent.mkdir(exist_ok=True)
    save(feeds, str(path))


def test_polygraphy_json(tmp_path: Path) -> None:
    feeds = [{"x": np.full((n, 4), n, np.float32)} for n in (1, 2, 1)]
    save_json(feeds, tmp_path / "inputs.json")
    source = opened(tmp_path, linear(), "inputs.json")
    assert [row[0] for row in rows(source, "x")] == [1, 2, 2, 1]
    assert measured(linear(), source) == (1, 2)
    assert source.description == "inputs.json"
    save_json(feeds[1], tmp_path / "one.json")
    assert opened(tmp_path, linear(), "one.json").count == 2


def test_a_folder_of_polygraphy_json(tmp_path: Path) -> None:
    for number in (10, 9):
        ids, mask = np.full((1, number), 3), np.ones((1, number), bool)
        save_json({"ids": ids, "mask": mask}, tmp_path / "inputs" / f"{number}.json")
    source = opened(tmp_path, tokens(), "inputs")
    assert [feeds["ids"].shape[1] for feeds in source.batches(4)] == [9, 10]
    assert source.description == "inputs/ (2 .json files)"


def test_json_is_read_item_by_item(tmp_path: Path) -> None:
    feeds = [{"x": np.random.default_rng(n).random((1, 50_000), np.float32)} for n in range(60)]
    save_json(feeds, tmp_path / "inputs.json")
    tracemalloc.start()
    source = opened(tmp_path, linear(width=50_000), "inputs.json")
    for feed, read in zip(feeds, source.batches(1), strict=True):
        assert np.array_equal(feed["x"], read["x"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000, "the file has 16 MB"


ARRAY = '{"array": "AAAA", "polygraphy_class": "ndarray"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or no JSON"),
        ("[{", "damaged or no JSON"),
        ('[{"x": 1}', "of type int, not ndarray"),
        ("[" * 100_000, "damaged or no JSON"),
        ("3", "no mapping of input names to arrays, but of type int"),
        (ARRAY, "of type ndarray"),
        (f'[{{"x": {ARRAY}}}]', "array 'x' of element 0 is damaged"),
        (f'[{{"x": {ARRAY.replace("AAAA", "%")}}}]', "is damaged"),
        ('[{"x": {"tensor": "A", "polygraphy_class": "Tensor"}}]', "of type Tensor, not ndarray"),
        ("\udcff", "damaged or no JSON"),
    ],
)
def test_json_that_holds_no_inputs(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "inputs.json").write_bytes(text.encode(errors="surrogateescape"))
    error = refused(tmp_path, linear(), "inputs.json")
    assert error.code == "TF0502"
    assert message in error.message


def test_json_cut_short(tmp_path: Path) -> None:
    save_json([{"x": np.zeros((1, 4), np.float32)}] * 3, tmp_path / "inputs.json")
    text = (tmp_path / "inputs.json").read_text()
    assert isinstance(json.loads(text), list)
    (tmp_path / "inputs.json").write_text(text[:-5])
    assert refused(tmp_path, linear(), "inputs.json").code == "TF0502"


def test_a_file_of_arrays_is_what_it_was(tmp_path: Path) -> None:
    saved(tmp_path / "calib.npz", x=np.ones((3, 4), np.float32))
    source = opened(tmp_path, linear(), "calib.npz")
    assert measured(linear(), source) == (1, 1)
    assert source.description == "calib.npz"
