"""The recipe's `precision` section: types, exceptions, and the budget of an automatic choice."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from trtforge.recipe import budget_laws, laws
from trtforge.recipe.fields import Flag, Integer, Number, Section, keep_laws

FloatType = Literal["fp32", "fp16", "bf16"]
QuantizedType = Literal["none", "int8", "fp8", "int8_weight_only", "int4_weight_only"]

MOST_SQNR_DB = 200.0
"""No mix reaches more: rounding to the 24 bits of FP32 alone leaves 6.02 * 24 + 1.76 = 146 dB."""


class NodeRule(Section):
    """Nodes, by operator, by name, by place, or by several of these at once."""

    op: str | None = Field(None, min_length=1, description="ONNX operator type, e.g. Softmax")
    name: str | None = Field(
        None, min_length=1, description="glob on the node's name, e.g. /head/*"
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="glob on names of the nodes that a node stands in, then its own, e.g. loop/*",
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(laws.keep_laws(self.model_dump()))
        return self


class KeepRule(NodeRule):
    """Nodes that are not quantized and compute in the given type."""

    type: FloatType = Field("fp32", description="the type these nodes compute in")


class ForceRule(NodeRule):
    """Nodes that compute in the given type, whatever their ranges and constants say."""

    type: Literal["fp16", "bf16"] = Field(description="the type these nodes compute in")


class Budget(Section):
    """What the cheapest mix of types must still reach; one of the first three."""

    sqnr_db: Number | None = Field(
        None,
        gt=0,
        le=MOST_SQNR_DB,
        description="at least this signal-to-quantization-noise ratio of every output, dB; "
        "INT8 often has 20 to 45, FP16 50 to 70",
    )
    top1_drop: Number | None = Field(
        None, ge=0, le=100, description="at most this loss of top-1 accuracy, percentage points"
    )
    metric: str | None = Field(
        None,
        min_length=1,
        description="`module:function` or `file.py:function`: outputs in, a number out",
    )
    at_least: Number | None = Field(None, description="the bound on `metric`")
    evaluations: Integer = Field(
        40, ge=1, le=10000, description="how many mixes may be tried at most"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(budget_laws.budget_laws(self.model_dump()))
        return self

    @property
    def measure(self) -> Literal["sqnr_db", "top1_drop", "metric"]:
        """The key that holds what is bounded."""
        if self.sqnr_db is not None:
            return "sqnr_db"
        return "top1_drop" if self.top1_drop is not None else "metric"


class Precision(Section):
    """Types of the typed graph."""

    type: Annotated[
        FloatType,
        BeforeValidator(
            lambda value: value, json_schema_input_type=Literal["fp32", "fp16", "bf16", "auto"]
        ),
    ] = Field(
        "fp32",
        description="the type of what is not quantized; auto: fp16 and int8, as `budget` allows",
    )
    quantize: QuantizedType = Field(
        "none",
        description="none, int8 (W8A8), fp8 (E4M3, W8A8), int8_weight_only or int4_weight_only",
    )
    block_size: Literal[32, 64, 128] = Field(
        128, description="int4_weight_only: weights of one output channel that share a scale"
    )
    attention: Flag = Field(
        False, description="int8 and fp8: quantize the matrix products of attention as well"
    )
    compact: Flag = Field(
        False, description="int8: leave unquantized what makes a TensorRT-RTX engine larger"
    )
    unquantized: tuple[Literal["first", "last"], ...] = Field(
        (), description="leave the first or the last layers of the network unquantized"
    )
    techniques: Annotated[
        Annotated[Literal["default", "none"], Tag("word")]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Tag("names")],
        Discriminator(lambda value: "names" if isinstance(value, list | tuple) else "word"),
    ] = Field(
        "default", description="what to do for accuracy: 'default', 'none', or techniques by name"
    )
    io_types: Literal["keep", "convert"] = Field(
        "keep", description="types of the model's inputs and outputs: as they are, or narrow too"
    )
    keep: tuple[KeepRule, ...] = Field((), description="exceptions, by operator, node name or path")
    force: tuple[ForceRule, ...] = Field(
        (), description="nodes that compute in a type whatever ranges say; keep goes before it"
    )
    budget: Budget | None = Field(
        None, description="choose the cheapest mix of types that still reaches this"
    )

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, data: Any) -> Any:
        keep_laws(budget_laws.auto_laws(data))
        return budget_laws.without_auto(data)
