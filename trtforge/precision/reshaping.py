"""How techniques reshaped the graph that a cache was measured on, so that it can be done again."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trtforge.precision.ranges import Finite

MOST_CHANNELS = 1 << 17
"""Above every vocabulary that products of networks have had so far; a file with more is damaged."""

Vector = Annotated[tuple[Finite, ...], Field(min_length=1, max_length=MOST_CHANNELS)]


class ScaledGroup(BaseModel):
    """Channels that were divided by a scale where they are made, and multiplied where read.

    Nodes go by the first tensor that they compute: every node has one, not every node has a name.

    Attributes:
        scale: one number > 0 per channel.
        axis: the axis of the channels in all tensors of the group.
        makers: nodes that compute the channels.
        readers: nodes that multiply them with weights.
        offsets: (node, index of its constant operand, rank of what it computes) of additions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[
        tuple[Annotated[Finite, Field(gt=0)], ...], Field(min_length=1, max_length=MOST_CHANNELS)
    ]
    axis: Annotated[int, Field(ge=0, le=64)]
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    offsets: tuple[tuple[str, Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0, le=64)]], ...]


class Reshaping(BaseModel):
    """What one technique did to the float graph before it was measured.

    Attributes:
        technique: `equalize` or `smoothquant`.
        groups: in the order in which they were scaled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    technique: str
    groups: tuple[ScaledGroup, ...]
