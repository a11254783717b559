"""Techniques `smoothquant` and `equalize`: channels of quantized tensors get ranges more alike."""

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.reshaping import Reshaping
from trtforge.precision.sites import Site, Skip, find_sites
from trtforge.precision.streaming import Stream
from trtforge.precision.techniques.channels import ChannelGroup, find_groups
from trtforge.precision.techniques.job import TechniqueJob
from trtforge.precision.techniques.probing import samples_to_run, shapes_of_a_run
from trtforge.precision.techniques.replay import recorded
from trtforge.precision.techniques.scaling import ChannelStatistics, Measured, best_scale
from trtforge.precision.typeinfo import tensors_of


class _Scaled:
    name = ""
    _wants_norm = False

    def apply(self, job: TechniqueJob) -> None:
        """Scale the channels of `job.model`; it computes what it did.

        Raises:
            DataError: the source cannot give a sample.
            GraphError: ONNX Runtime refuses the model.
        """
        if job.source is None or job.precision.quantize != "int8":
            return
        graph = editable_graph(job.model)
        shapes = shapes_of_a_run(job.model, job.source)
        findings = find_sites(graph, tensors_of(job.model.proto), job.precision)
        quantized = [one for one in findings if isinstance(one, Site | Skip)]
        names = {one.activation.name for one in quantized}
        groups = [
            group
            for group in find_groups(graph, shapes)
            if group.has_norm == self._wants_norm and not names.isdisjoint(group.ranks)
        ]
        stop = samples_to_run(job, job.source, shapes)
        stream = Stream(job.model, job.source, 0, stop, job.on_progress)
        seen = _measure(stream, groups, names)
        fresh, left, done = Names(graph), [], []
        for group in groups:
            tensors = [
                _measured(name, seen[name], quantized) for name in group.ranks if name in seen
            ]
            found = best_scale(group, tensors)
            if found is not None:
                done.append(recorded(group, found[0]))
                group.scale(found[0], fresh)
                left.append(found[1])
        if left:
            job.model = job.model.with_graph(graph)
            job.reshaping += (Reshaping(technique=self.name, groups=tuple(done)),)
            share = 10 * np.log10(np.exp(np.mean(np.log(left))))
            job.notes.append(
                f"{self.name}: {len(left)} of {len(groups)} groups of channels scaled, "
                f"expected noise {share:.1f} dB"
            )


class Equalize(_Scaled):
    """Even out the channels between convolutions, with ranges from data as well as weights.

    See `scaling.py` for the algebra, `channels.py` for what a group of channels is: residual
    streams are groups, too.
    """

    name = "equalize"


class SmoothQuant(_Scaled):
    """Even out the channels that a normalization gives to products, moving ranges into weights.

    After G. Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models" (2022): the normalization's own affine part takes the factors, and all its
    readers (queries, keys, values) share them. See `scaling.py` for how far.
    """

    name = "smoothquant"
    _wants_norm = True


def _measure(
    stream: Stream, groups: Iterable[ChannelGroup], names: set[str]
) -> dict[str, ChannelStatistics]:
    axes = {name: group.axis for group in groups for name in group.ranks if name in names}
    channels = {name: group.channels for group in groups for name in group.ranks if name in names}
    seen = {name: ChannelStatistics.empty(count) for name, count in channels.items()}
    for names_at_once in stream.groups(tuple(seen)):
        stream.run(
            names_at_once,
            lambda name, values: seen[name].add(values, axes[name]),
            what="channels",
        )
    return seen


def _measured(name: str, seen: ChannelStatistics, quantized: Iterable[Site | Skip]) -> Measured:
    mine = [one for one in quantized if one.activation.name == name]
    readers: tuple[gs.Node, ...] = tuple(one.node for one in mine if isinstance(one, Site))
    return Measured(seen, readers, any(isinstance(one, Skip) for one in mine))
