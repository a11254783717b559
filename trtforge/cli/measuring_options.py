"""Options that `trtforge quantize` and `trtforge calibrate` share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

QUANTIZED_TYPES = ("int8", "fp8", "int8_weight_only", "int4_weight_only")
METHODS = ("minmax", "average", "percentile", "entropy", "mse")


def calibration_options(function: _Function) -> _Function:
    """Add the options about data and method."""
    return _with(
        function,
        click.option(
            "--data",
            metavar="DATA",
            help="Samples: .npz, .npy, a folder of them, .py with load_data, Polygraphy's .json,"
            " module:function, or a mapping as in a recipe, such as '{images: photos}'.",
        ),
        click.option("--synthetic", is_flag=True, help="Random samples, to try things out with."),
        click.option("--samples", type=click.IntRange(1), metavar="N", help="Use the first N."),
        click.option(
            "--method", type=click.Choice(METHODS), help="How ranges are chosen; default mse."
        ),
        click.option(
            "--percentile", type=float, metavar="P", help="Of method percentile; default 99.99."
        ),
        click.option(
            "--shape",
            "shapes",
            multiple=True,
            metavar="NAME=1x3x224x224",
            help="A dynamic input's shape (repeatable).",
        ),
    )


def precision_options(function: _Function) -> _Function:
    """Add the options about types and what is left out."""
    return _with(
        function,
        click.option(
            "--quantize",
            type=click.Choice(QUANTIZED_TYPES),
            default="int8",
            show_default=True,
            help="What becomes of weights (and activations).",
        ),
        click.option(
            "--type",
            type=click.Choice(("fp32", "fp16", "bf16")),
            default="fp32",
            show_default=True,
            help="The type of everything else.",
        ),
        click.option(
            "--block-size",
            type=click.Choice(("32", "64", "128")),
            callback=lambda _ctx, _option, value: None if value is None else int(value),
            help="Weights that share a scale, for int4_weight_only; default 128.",
        ),
        click.option("--attention", is_flag=True, help="Quantize attention's products as well."),
        click.option(
            "--compact", is_flag=True, help="Leave what makes INT8 engines larger, for int8."
        ),
        click.option(
            "--unquantized",
            type=click.Choice(("first", "last")),
            multiple=True,
            help="Leave the first or the last layers as they are (repeatable).",
        ),
        click.option(
            "--keep",
            multiple=True,
            metavar="RULE",
            help="Leave nodes: op=Softmax, name='/head/*', path='loop/*'; then :fp32 (repeatable).",
        ),
        click.option(
            "--techniques",
            metavar="A,B",
            help="What to do for accuracy: default, none, or names; calibrate does none unasked.",
        ),
    )


def _with(function: _Function, *options: Callable[[_Function], _Function]) -> _Function:
    for option in reversed(options):
        function = option(function)
    return function
