"""Make models/encoder.onnx, a BERT-like text encoder: seeded weights, no download.

Run `python recipes/nlp/make_model.py` with the `torch` extra installed. By default it has
BERT-base's dimensions (12 layers, hidden size 768, 12 heads, vocabulary 30522: 109 M parameters,
438 MB); `--layers 2 --hidden 128` makes a small one. Batch and sequence are dynamic.
"""

import argparse
import hashlib
import io
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

SEED = 20261122
OPSET = 17
HEAD_SIZE = 64


@dataclass(frozen=True)
class Dimensions:
    """An encoder's sizes; the defaults are BERT-base's (Devlin et al., 2018, section 3)."""

    layers: int = 12
    hidden: int = 768
    vocabulary: int = 30522
    positions: int = 512

    @property
    def heads(self) -> int:
        """Attention heads of 64 channels each."""
        return max(1, self.hidden // HEAD_SIZE)


class Embeddings(nn.Module):
    """Word and position embeddings, added and normalized."""

    def __init__(self, size: Dimensions):
        super().__init__()
        self.word = nn.Embedding(size.vocabulary, size.hidden)
        self.position = nn.Embedding(size.positions, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, eps=1e-12)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids (N,S) as (N,S,H)."""
        positions = torch.arange(input_ids.shape[1]).unsqueeze(0)
        return self.norm(self.word(input_ids) + self.position(positions))


class SelfAttention(nn.Module):
    """Multi-head self-attention, written out as MatMul, Softmax, MatMul."""

    def __init__(self, size: Dimensions):
        super().__init__()
        self.split_shape = (size.heads, size.hidden // size.heads)
        self.query = nn.Linear(size.hidden, size.hidden)
        self.key = nn.Linear(size.hidden, size.hidden)
        self.value = nn.Linear(size.hidden, size.hidden)
        self.output = nn.Linear(size.hidden, size.hidden)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Attend over (N,S,H); the bias (N,1,1,S) is 0 for real tokens and very negative else."""
        batch, length, _ = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, *self.split_shape).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.split_shape[1]) + bias
        mixed = functional.softmax(scores, dim=-1) @ value
        return self.output(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and a GELU feed-forward network, each added and normalized (post-norm)."""

    def __init__(self, size: Dimensions):
        super().__init__()
        self.attention = SelfAttention(size)
        self.attention_norm = nn.LayerNorm(size.hidden, eps=1e-12)
        self.wide = nn.Linear(size.hidden, 4 * size.hidden)
        self.narrow = nn.Linear(4 * size.hidden, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, eps=1e-12)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Transform (N,S,H)."""
        x = self.attention_norm(x + self.attention(x, bias))
        return self.norm(x + self.narrow(functional.gelu(self.wide(x))))


class Encoder(nn.Module):
    """Token ids and mask in, every token's state and a pooled one out."""

    def __init__(self, size: Dimensions):
        super().__init__()
        self.embeddings = Embeddings(size)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.pooler = nn.Linear(size.hidden, size.hidden)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode (N,S) int64 ids; returns (N,S,H) and (N,H).

        The mask's bias is -10000 as in the first BERT, a value that FP16 holds.
        """
        bias = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * -10000.0
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x, bias)
        return x, torch.tanh(self.pooler(x[:, 0]))


def make_encoder(size: Dimensions) -> Encoder:
    """Return an encoder with seeded weights of BERT's own initial distribution, N(0, 0.02).

    Biases and normalization weights get a spread too, so that none of them is an exact 0 or 1
    that a clean-up pass could remove, as none is in a trained network.
    """
    torch.manual_seed(SEED)
    net = Encoder(size)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            middle = 1.0 if "norm.weight" in name else 0.0
            parameter.normal_(middle, 0.02)
    return net.eval()


def export(net: Encoder) -> onnx.ModelProto:
    """Return the ONNX model, its node names made of module paths."""
    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "N", 1: "S"}
    buffer = io.BytesIO()
    # Module paths as node names come from this exporter alone; it says that it is the older one,
    # and that shapes are traced (the sizes it names are the ones that are constant here).
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    torch.onnx.export(
        net,
        (example, example),
        buffer,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state", "pooler_output"],
        dynamic_axes={
            "input_ids": axes,
            "attention_mask": axes,
            "last_hidden_state": axes,
            "pooler_output": {0: "N"},
        },
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    model.graph.name = "encoder"
    model.doc_string = "BERT-like encoder with seeded random weights (recipes/nlp/make_model.py)"
    onnx.checker.check_model(model, full_check=True)
    return model


def largest_difference(net: Encoder, path: Path, size: Dimensions) -> float:
    """Return the largest difference between torch and ONNX Runtime at three shapes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(SEED)
    largest = 0.0
    for batch, length in ((1, 8), (3, 17), (2, 64)):
        ids = rng.integers(0, size.vocabulary, (batch, length))
        mask = np.ones((batch, length), np.int64)
        mask[-1, length // 2 :] = 0
        got = session.run(None, {"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            wanted = net(torch.from_numpy(ids), torch.from_numpy(mask))
        for one, other in zip(got, wanted, strict=True):
            if one.shape != tuple(other.shape) or not np.isfinite(one).all():
                raise SystemExit(f"the exported model is wrong at {(batch, length)}")
            largest = max(largest, float(np.abs(one - other.numpy()).max()))
    return largest


def make_data(path: Path, size: Dimensions, samples: int, length: int) -> None:
    """Write seeded token ids with padding: `input_ids` and `attention_mask`, both (samples,S)."""
    rng = np.random.default_rng(SEED)
    ids = rng.integers(1, size.vocabulary, (samples, length))
    lengths = rng.integers(length // 4, length + 1, (samples, 1))
    mask = (np.arange(length)[None] < lengths).astype(np.int64)
    np.savez(path, input_ids=ids * mask, attention_mask=mask)


def main() -> None:
    """Write the model and its data, and print what was made as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    parser.add_argument("--layers", type=int, default=Dimensions.layers)
    parser.add_argument("--hidden", type=int, default=Dimensions.hidden, help="a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=Dimensions.vocabulary)
    parser.add_argument("--name", default="encoder", help="file name without .onnx")
    chosen = parser.parse_args()
    if chosen.hidden % HEAD_SIZE:
        parser.error(f"--hidden must be a multiple of {HEAD_SIZE}")
    size = Dimensions(chosen.layers, chosen.hidden, chosen.vocabulary)
    chosen.out.mkdir(parents=True, exist_ok=True)
    net = make_encoder(size)
    path = chosen.out / f"{chosen.name}.onnx"
    model = export(net)
    path.write_bytes(model.SerializeToString(deterministic=True))
    make_data(chosen.out / f"{chosen.name}-test.npz", size, samples=8, length=128)
    figures = {
        "model": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "nodes": len(model.graph.node),
        "opset": OPSET,
        "largest_difference_from_torch": largest_difference(net, path, size),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
