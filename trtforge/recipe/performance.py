"""The recipe's `performance` section: what `trtforge bench` measures of a bundle, and limits."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trtforge.recipe.fields import Integer, Number, Section, keep_laws
from trtforge.recipe.performance_laws import performance_laws


class Performance(Section):
    """What `trtforge bench BUNDLE` measures unless told otherwise; builds measure nothing."""

    scenario: Literal["single-stream", "multi-stream", "server", "offline"] = Field(
        "single-stream", description="what arrives when, in the manner of MLPerf inference"
    )
    batch: Integer | None = Field(
        None, ge=1, description="samples per query; default 1, multi-stream 8"
    )
    streams: Integer = Field(
        1, ge=1, le=64, description="server and offline: how many queries run at a time"
    )
    rate: Number | None = Field(
        None, gt=0, description="server: queries per second in the mean; must be given there"
    )
    limits: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="what must hold, e.g. p99_ms<=5; `trtforge bench` exits with 6 otherwise"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(performance_laws(self.model_dump()))
        return self
