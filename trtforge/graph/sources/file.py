"""One .npz or .npy file."""

from trtforge.graph.data import ArrayData
from trtforge.graph.sources.request import SourceRequest


def open_source(request: SourceRequest) -> ArrayData:
    """Open the file that `data` names.

    Raises:
        DataError: TF0501 to TF0509, see ArrayData.open.
    """
    data = request.calibration.data
    assert isinstance(data, str)
    return ArrayData.open(request.resolve(data), request.contract)
