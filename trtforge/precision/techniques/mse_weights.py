"""Technique `mse-weights`: weight scales of least squared error."""

import numpy as np

from trtforge.precision.constants import editable_graph
from trtforge.precision.sites import Site, find_sites
from trtforge.precision.techniques.job import TechniqueJob
from trtforge.precision.typeinfo import tensors_of
from trtforge.precision.weight_scales import weight_scales


class MseWeights:
    """Give each output channel the weight scale of least squared error in place of amax / 127.

    A scale s that clips some weights rounds the others more finely: s is searched for the least
    sum of (w - s q(w / s))^2, see `weight_scales.py`. Weight-only quantization does so anyway.
    """

    name = "mse-weights"

    def apply(self, job: TechniqueJob) -> None:
        """Fix the scales in `job.cache`."""
        kind = job.precision.quantize
        if job.cache is None or kind not in ("int8", "fp8"):
            return
        graph = editable_graph(job.model)
        fixed = dict(job.cache.weight_scales)
        for site in find_sites(graph, tensors_of(job.model.proto), job.precision):
            if not isinstance(site, Site) or site.weight.name in fixed:
                continue
            values = np.asarray(site.weight.values, np.float32)
            scale = weight_scales(values, site.axis, kind, "mse", job.precision.type)
            fixed[site.weight.name] = tuple(float(one) for one in scale.ravel())
        job.cache = job.cache.model_copy(update={"weight_scales": fixed})
        job.notes.append(f"{self.name}: {len(fixed)} weights")
