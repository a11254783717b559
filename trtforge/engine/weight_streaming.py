"""How many of an engine's weights stay on the GPU; inside the worker process only.

An engine that was built with `weight_streaming` keeps its weights in host memory and copies what
the GPU does not hold when it runs (TensorRT documentation, "Weight Streaming").
"""

from typing import Any, Literal

from trtforge.errors import BuildError


def set_weight_budget(engine: Any, budget: float | Literal["auto"]) -> None:
    """Tell an ICudaEngine how many of its weights the GPU may hold, before any context is made.

    Args:
        engine: built with `weight_streaming`.
        budget: MiB, 0 for as few as can be, or "auto" for what the library thinks fits.

    Raises:
        BuildError: TF0630, the engine streams no weights, or does not take the budget.
    """
    whole = int(engine.streamable_weights_size)
    if whole <= 0:
        raise BuildError(
            "TF0630",
            "the engine streams no weights",
            hint="build it with the option weight_streaming, or give no budget",
        )
    if budget == "auto":
        wanted = int(engine.get_weight_streaming_automatic_budget())
    else:
        wanted = round(budget * 2**20)
    wanted = min(wanted, whole)  # all of them: nothing is streamed
    engine.weight_streaming_budget_v2 = wanted
    if int(engine.weight_streaming_budget_v2) != wanted:
        raise BuildError(
            "TF0630",
            f"the engine does not take a budget of {wanted} bytes for its weights",
            hint=f"all that can be streamed are {whole} bytes; give a smaller budget",
        )


def weight_facts(engine: Any) -> dict[str, int]:
    """Return how many weights an ICudaEngine can stream and how many the GPU holds, bytes.

    Empty of an engine that streams none.
    """
    whole = int(engine.streamable_weights_size)
    if whole <= 0:
        return {}
    held = int(engine.weight_streaming_budget_v2)
    return {"streamable_weights_bytes": whole, "weight_budget_bytes": held}
