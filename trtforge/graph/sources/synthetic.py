"""Random samples by a model's contract, the same on every machine: to try things out with."""

from collections.abc import Iterator

from trtforge.errors import Place
from trtforge.graph.inputs import Shapes, random_feeds, resolve_shapes
from trtforge.graph.model import Model
from trtforge.graph.sources.checks import static_batch
from trtforge.graph.sources.items import ItemSource
from trtforge.graph.sources.request import SourceRequest
from trtforge.graph.sources.source import Feeds

SAMPLES = 32
"""How many are made where the recipe does not say."""


def open_source(request: SourceRequest) -> "SyntheticData":
    """Make samples for the model of the request.

    Raises:
        GraphError: TF0412 a dynamic input has no shape, TF0413 strings.
    """
    return SyntheticData(request)


class SyntheticData(ItemSource):
    """Samples drawn by `random_feeds`; number i has the seed i.

    Dynamic inputs take the `opt` shape of the first profile, with a batch of one.
    """

    def __init__(self, request: SourceRequest) -> None:
        assert request.model is not None, "synthetic samples need the model"
        self._model: Model = request.model
        profile = request.profiles[0] if request.profiles else {}
        self._size = static_batch(request.contract.inputs) or 1
        self._shapes: Shapes = {
            name: (self._size, *shape[1:]) if shape else shape
            for name, shape in resolve_shapes(request.contract, profile, "opt").items()
        }
        self._runs = -(-(request.wanted or SAMPLES) // self._size)
        super().__init__(request, "synthetic samples", Place("calibration.synthetic"))

    @property
    def is_synthetic(self) -> bool:
        """True: nobody recorded these."""
        return True

    def items(self) -> Iterator[tuple[Feeds, Place]]:
        """Draw one batch of the model's size, or one sample, after the other."""
        for seed in range(self._runs):
            feeds = random_feeds(self._model, self._shapes, seed)
            yield {name: feeds[name] for name in self.specs}, self.where
