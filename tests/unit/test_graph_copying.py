"""Weights copied from file to file by the kernel: the same bytes, whatever the kernel can do."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto

from trtforge.errors import MissingError
from trtforge.graph import external
from trtforge.graph.model import Model

SIDE = 600  # 1.4 MB a weight


def big(count: int = 3) -> ModelProto:
    nodes, weights, last = [], [], "x"
    for index in range(count):
        weights.append(mg.tensor(f"W{index}", mg.weights(SIDE, SIDE, seed=index)))
        nodes.append(mg.node("MatMul", [last, f"W{index}"], [f"h{index}"]))
        last = f"h{index}"
    return mg.model(nodes, [mg.info("x", [1, SIDE])], [mg.info(last, [1, SIDE])], weights)


def saved(tmp_path: Path, *, outside: bool) -> Path:
    path = tmp_path / "source.onnx"
    if outside:
        onnx.save(big(), path, save_as_external_data=True, location="source.data")
    else:
        onnx.save(big(), path)
    return path


def never(*args: object) -> int:
    raise OSError(errno.EXDEV, "these two file systems cannot")


def stops_after(limit: int) -> Callable[..., int]:
    done = 0
    real = os.copy_file_range

    def copy(source: int, target: int, count: int, offset: int) -> int:
        nonlocal done
        if done >= limit:
            raise OSError(errno.EINVAL, "not any further")
        step = real(source, target, min(count, 100_000), offset)
        done += step
        return step

    return copy


def gives_nothing(*args: object) -> int:
    return 0


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("kernel", [None, never, gives_nothing, stops_after(350_000)])
def test_the_bytes_are_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: Callable[..., int] | None,
    outside: bool,
) -> None:
    if kernel is not None:
        monkeypatch.setattr(os, "copy_file_range", kernel)
    source = saved(tmp_path, outside=outside)
    target = tmp_path / "target.onnx"
    Model.load(source).save(target)
    for tensor in onnx.load(target).graph.initializer:
        index = int(tensor.name[1:])
        expected = mg.weights(SIDE, SIDE, seed=index)
        assert np.array_equal(onnx.numpy_helper.to_array(tensor), expected)
    if not outside:
        assert target.read_bytes() == source.read_bytes()


def test_over_itself(tmp_path: Path) -> None:
    source = saved(tmp_path, outside=False)
    before = source.read_bytes()
    model = Model.load(source)
    model.save(source)
    model.save(source)  # the file that was loaded is gone by now
    assert source.read_bytes() == before


def test_few_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "_MOST_OPEN_FILES", 2)
    path = tmp_path / "m.onnx"
    onnx.save(big(6), path, save_as_external_data=True, all_tensors_to_one_file=False)
    model = Model.load(path)
    opened = [model.files.in_file(tensor) for tensor in model.proto.graph.initializer]
    assert sum(found is not None for found in opened) == 2
    model.save(tmp_path / "n.onnx")
    copy = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "n.onnx").graph.initializer
    }
    assert all(np.array_equal(copy[f"W{i}"], mg.weights(SIDE, SIDE, seed=i)) for i in range(6))


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    model = Model.load(saved(tmp_path, outside=False))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(MissingError):
            model.save(tmp_path / "target.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx"]
