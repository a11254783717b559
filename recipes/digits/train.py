"""Train the digits CNN and write model.onnx, calib.npz and test.npz beside this file.

Run `python recipes/digits/train.py` with the `torch` extra installed. Everything is seeded and
runs on one CPU thread with deterministic algorithms, so a second run on the same machine and
versions gives the same weights. The test split is never used for training or for choosing
anything: the schedule is fixed, there is no early stopping.

The data are the 1797 8x8 images of scikit-learn's `load_digits` (UCI "Optical Recognition of
Handwritten Digits"), scaled from 0..16 to 0..1.
"""

import argparse
import io
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

SEED = 20261122
TEST_SAMPLES = 797
CALIBRATION_SAMPLES = 256
OPSET = 18


@dataclass(frozen=True)
class Split:
    """Images (N,1,8,8) float32 in 0..1 and class ids (N,) int64."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    epochs: int = 120
    batch: int = 64
    peak_rate: float = 8e-3
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05


class ConvBN(nn.Module):
    """Convolution, batch normalization and ReLU, kept apart so that the ONNX file has all three."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            *channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(channels[1])
        self.relu = nn.ReLU() if relu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer."""
        x = self.bn(self.conv(x))
        return x if self.relu is None else self.relu(x)


class Residual(nn.Module):
    """Two 3x3 convolutions and a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvBN((channels, channels))
        self.second = ConvBN((channels, channels), relu=False)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer."""
        return self.relu(x + self.second(self.first(x)))


class DepthwiseSeparable(nn.Module):
    """A 3x3 depthwise convolution of stride 2 and a 1x1 pointwise one."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.depthwise = ConvBN((channels_in, channels_in), stride=2, groups=channels_in)
        self.pointwise = ConvBN((channels_in, channels_out), kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer."""
        return self.pointwise(self.depthwise(x))


class DigitsNet(nn.Module):
    """Image (N,1,8,8) in, logits (N,10) out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN((1, 24))
        self.residual = Residual(24)
        self.separable1 = DepthwiseSeparable(24, 48)
        self.separable2 = DepthwiseSeparable(48, 96)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        x = self.separable2(self.separable1(self.residual(self.stem(image))))
        return self.head(self.dropout(self.flatten(self.pool(x))))


def load_splits() -> tuple[Split, Split]:
    """Return the training and the held-out split, stratified by class."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_SAMPLES, random_state=SEED, stratify=labels
    )
    return Split(train_x, train_y), Split(test_x, test_y)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate, scale, shear and shift each image (N,1,8,8) a little, at random."""
    count = images.shape[0]
    noise = torch.rand(count, 6, generator=generator) * 2 - 1
    angle = noise[:, 0] * 0.2
    scale = 1 + noise[:, 1:3] * 0.1
    shear = noise[:, 3] * 0.15
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * scale[:, 0]
    theta[:, 0, 1] = -torch.sin(angle) + shear
    theta[:, 1, 0] = torch.sin(angle)
    theta[:, 1, 1] = torch.cos(angle) * scale[:, 1]
    theta[:, :, 2] = noise[:, 4:6] * 0.2
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(split: Split, schedule: Schedule, seed: int) -> DigitsNet:
    """Train on one split for a fixed schedule and return the network in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = DigitsNet()
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    steps = -(-len(labels) // schedule.batch)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.peak_rate, total_steps=schedule.epochs * steps
    )
    for epoch in range(schedule.epochs):
        total = 0.0
        for chosen in torch.randperm(len(labels), generator=generator).split(schedule.batch):
            logits = net(augment(images[chosen], generator))
            loss = functional.cross_entropy(
                logits, labels[chosen], label_smoothing=schedule.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += loss.item()
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:3d}  loss {total / steps:.4f}", file=sys.stderr)
    return net.eval()


def accuracy(net: DigitsNet, split: Split) -> float:
    """Return the top-1 accuracy, 0..1."""
    with torch.no_grad():
        predicted = net(torch.from_numpy(split.images)).argmax(1).numpy()
    return float((predicted == split.labels).mean())


def export(net: DigitsNet, path: Path) -> None:
    """Write the network with its BatchNormalization nodes kept and batch dimension `N`.

    `TrainingMode.PRESERVE` on a network in eval mode: the default, EVAL, would fold every
    BatchNormalization into its convolution before trtforge sees it.
    """
    buffer = io.BytesIO()
    # Module paths as node names come from this exporter alone; it says that it is the older one.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        buffer,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    model.graph.name = "digits"
    model.doc_string = "CNN for scikit-learn's 8x8 digits; made by recipes/digits/train.py"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Train, export, and print the accuracies as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="output folder")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, test = load_splits()
    net = train(training, Schedule(), SEED)
    export(net, out / "model.onnx")
    chosen = np.random.default_rng(SEED).permutation(len(training.labels))[:CALIBRATION_SAMPLES]
    np.savez_compressed(out / "calib.npz", image=training.images[chosen])
    np.savez_compressed(out / "test.npz", image=test.images, labels=test.labels)
    figures = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "train_samples": len(training.labels),
        "train_accuracy": accuracy(net, training),
        "test_samples": len(test.labels),
        "test_accuracy": accuracy(net, test),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
