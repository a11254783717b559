"""Images as data: the declared preprocessing, against torchvision's arithmetic by hand."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from models_precision import Net
from PIL import Image
from source_samples import measured, opened, pictures, refused, tokens

from trtforge.errors import MissingError

UINT8, FLOAT16, INT32 = 2, 10, 6


def noise(seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def put(folder: Path, name: str, pixels: np.ndarray, **options: object) -> Path:
    path = folder / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def section(**how: object) -> dict[str, object]:
    return {"data": {"images": "photos", **how}}


def first(folder: Path, model: object = None, **how: object) -> np.ndarray:
    source = opened(folder, model or pictures(), section(**how))  # type: ignore[arg-type]
    return next(source.batches(1))["image"][0]


def test_pixels_scaled_and_normalized(tmp_path: Path) -> None:
    pixels = noise()
    put(tmp_path, "a.png", pixels)
    plain = pixels.transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255)
    assert np.array_equal(first(tmp_path), plain)
    assert np.allclose(first(tmp_path, scale=0.00392), plain * 0.9996)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    wanted = (plain - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(first(tmp_path, mean=mean, std=std), wanted, atol=1e-6)
    assert np.allclose(
        first(tmp_path, scale=1, mean=[127.5], std=[127.5]), plain * 2 - 1, atol=1e-6
    )


def test_layout_and_colours(tmp_path: Path) -> None:
    pixels = noise()
    put(tmp_path, "a.png", pixels)
    nhwc = first(tmp_path, pictures("nhwc"), layout="nhwc")
    assert np.array_equal(nhwc.transpose(2, 0, 1), first(tmp_path))
    assert np.array_equal(first(tmp_path, colour="bgr"), first(tmp_path)[::-1])
    bgr = {"colour": "bgr", "mean": [0.1, 0.2, 0.3]}
    blue = first(tmp_path)[2] - np.float32(0.1)
    assert np.array_equal(first(tmp_path, **bgr)[0], blue), "mean is in the order of the channels"
    grey = first(tmp_path, pictures(channels=1), colour="grey")
    wanted = np.asarray(Image.fromarray(pixels).convert("L"), np.float32) / 255
    assert np.allclose(grey[0], wanted)


@pytest.mark.parametrize("kind", [UINT8, FLOAT16])
def test_the_input_has_its_own_type(tmp_path: Path, kind: int) -> None:
    pixels = noise()
    put(tmp_path, "a.png", pixels)
    values = first(tmp_path, pictures(kind=kind))
    if kind == UINT8:
        assert np.array_equal(values, pixels.transpose(2, 0, 1))
    else:
        assert values.dtype == np.float16
        assert np.allclose(values, first(tmp_path), atol=1e-3)


@pytest.mark.parametrize(
    ("resize", "size"),
    [(20, (20, 40)), ([20, 30], (20, 30)), (5, (5, 10)), (None, (10, 20))],
)
def test_resize_then_crop_out_of_the_middle(
    tmp_path: Path, resize: object, size: tuple[int, int]
) -> None:
    pixels = noise(0, 10, 20)
    put(tmp_path, "wide.png", pixels)
    put(tmp_path, "z-tall.png", pixels.transpose(1, 0, 2))
    scaled = Image.fromarray(pixels)
    if resize is not None:
        scaled = scaled.resize(size[::-1], Image.Resampling.BILINEAR)
    values = np.asarray(scaled, np.float32)
    top, left = round((size[0] - 4) / 2), round((size[1] - 5) / 2)
    cut = values[top : top + 4, left : left + 5] / 255
    net = Net()
    net.output(net.op("Relu", [net.input("image", ["N", 3, 4, 5])], "y"), ["N", 3, 4, 5])
    how = {"crop": [4, 5]} | ({} if resize is None else {"resize": resize})
    source = opened(tmp_path, net.model(), section(**how))
    assert np.allclose(next(source.batches(1))["image"][0], cut.transpose(2, 0, 1), atol=1e-6)
    assert source.count == 2


def test_images_without_resize_run_in_their_own_sizes(tmp_path: Path) -> None:
    for number, width in enumerate((8, 8, 9, 8)):
        put(tmp_path, f"{number}.png", noise(number, 8, width))
    model = pictures(size="S")  # type: ignore[arg-type]
    model.proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    source = opened(tmp_path, type(model)(model.proto), section())
    shapes = [feeds["image"].shape for feeds in source.batches(4)]
    assert shapes == [(2, 3, 8, 8), (1, 3, 8, 9), (1, 3, 8, 8)]
    measured(model, source)


def test_order_subfolders_and_what_is_passed_over(tmp_path: Path) -> None:
    for value, name in enumerate(("cat/img2.png", "cat/img10.JPG", "dog/a.bmp", "z.png")):
        put(tmp_path, name, np.full((8, 8, 3), value * 51, np.uint8))
    (tmp_path / "photos" / "labels.txt").write_text("cat dog")
    (tmp_path / "photos" / "._a.png").write_text("")
    source = opened(tmp_path, pictures(), section())
    means = [feeds["image"].mean() for feeds in source.batches(1)]
    assert np.allclose(means, [0, 0.2, 0.4, 0.6], atol=0.01)
    assert next(source.batches(1, start=2))["image"].mean() == pytest.approx(0.4)
    assert source.count == 4
    low, high = measured(pictures(), source)
    assert (low, high) == pytest.approx((0, 0.6))
    assert source.description == "photos/ (as they are)"
    described = opened(tmp_path, pictures(), section(resize=8, mean=[0.5], std=[0.5])).description
    assert described == "photos/ (resize 8, mean [0.5], std [0.5])"


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is on the right: turn it clockwise
    put(tmp_path, "a.png", pixels, exif=exif)
    turned = np.rot90(pixels, -1).transpose(2, 0, 1)
    assert np.array_equal(first(tmp_path), turned.astype(np.float32) * np.float32(1 / 255))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "photos").mkdir()
    image = Image.fromarray(noise()).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / "photos" / f"a.{suffix}")
    wanted = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)
    assert np.array_equal(first(tmp_path), wanted * np.float32(1 / 255))


def test_the_digest_is_of_bytes_names_and_preprocessing(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for number in range(3):
            put(tmp_path / folder, f"{number}.png", noise(number))

    def digest(folder: str, samples: int | None = None, **how: object) -> str:
        return opened(tmp_path / folder, pictures(), section(**how) | {"samples": samples}).digest

    assert digest("a") == digest("b") == digest("a", 3)
    assert digest("a") != digest("a", 2) == digest("b", 2)
    assert len({digest("a", mean=[m]) for m in (0.1, 0.2)} | {digest("a")}) == 3
    put(tmp_path / "b", "2.png", noise(9))
    assert digest("a", 2) == digest("b", 2)
    assert digest("a") != digest("b")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    bad = put(tmp_path, "b.png", noise(1, 64, 64))
    put(tmp_path, "a.png", noise(0, 64, 64))
    whole = bad.read_bytes()
    for content in (whole[:200], whole[: len(whole) // 2], b"", b"GIF89a", b"\x89PNG" + whole[:50]):
        bad.write_bytes(content)
        error = refused(tmp_path, pictures(size=64), section())
        assert (error.code, error.where.file) == ("TF0502", str(bad))  # type: ignore[union-attr]
        assert "image 'b.png' is damaged or no image" in error.message


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    bad = put(tmp_path, "b.jpg", noise(1, 64, 64))
    bad.write_bytes(bad.read_bytes()[:-300])
    assert "b.jpg" in refused(tmp_path, pictures(size=64), section()).message


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", np.zeros((8, 8), np.uint16))
    assert "more than 8 bits" in refused(tmp_path, pictures(), section()).message


def test_an_image_that_does_not_fit_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", noise())
    put(tmp_path, "b.png", noise(1, 7, 8))
    error = refused(tmp_path, pictures(), section())
    assert error.code == "TF0504"
    assert str(error.where).endswith("b.png")
    assert "dimension 2 of array 'image' is 7" in error.message
    error = refused(tmp_path, pictures(), section(crop=8))
    assert "'b.png' is 7 x 8 pixels, and the crop is 8 x 8" in error.message


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    error = refused(tmp_path, pictures(), section())
    assert (error.code, error.message) == ("TF0501", "the folder has no image")


@pytest.mark.parametrize(
    ("kind", "how", "text"),
    [
        (UINT8, {"mean": [1.0]}, "which cannot have mean"),
        (UINT8, {"scale": 0.5, "std": [2.0]}, "which cannot have scale and std"),
        (INT32, {}, "input 'image' is int32, and pixels are not"),
    ],
)
def test_preprocessing_that_does_not_fit(tmp_path: Path, kind: int, how: dict, text: str) -> None:  # type: ignore[type-arg]
    put(tmp_path, "a.png", noise())
    error = refused(tmp_path, pictures(kind=kind), section(**how))
    assert error.code == "TF0505"
    assert text in error.message


def test_images_feed_one_input(tmp_path: Path) -> None:
    put(tmp_path, "a.png", noise())
    error = refused(tmp_path, tokens(), section())
    assert error.code == "TF0503"
    assert "ids, mask" in error.message


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingError) as caught:
        opened(tmp_path, pictures(), section())
    assert (caught.value.code, caught.value.exit_status) == ("TF0540", 3)
    assert caught.value.hint == "run: pip install trtforge[images]"


def test_memory_is_flat(tmp_path: Path) -> None:
    one = put(tmp_path, "0.png", noise(0, 64, 64))
    for number in range(1, 500):
        (tmp_path / "photos" / f"{number}.png").hardlink_to(one)
    source = opened(tmp_path, pictures(size=64), section())
    tracemalloc.start()
    assert sum(len(feeds["image"]) for feeds in source.batches(4)) == 500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000, "the samples together are 24 MB"
