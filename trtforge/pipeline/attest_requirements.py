"""Bounds on shares without a recipe: `macs.int8>=0.8`, held against every view that tells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from trtforge.errors import UsageError
from trtforge.pipeline.attest_views import View
from trtforge.pipeline.attesting import TYPED_ONNX, WORDS, Check
from trtforge.precision.attest import QUANTIZED
from trtforge.recipe.attest_laws import ATTESTED
from trtforge.recipe.schema import TypeName

_KINDS = (*get_args(TypeName), "quantized")
_REQUIREMENT = re.compile(r"(\w+)\.(\w+)\s*(>=|<=)\s*([0-9.]+)\s*(%?)")
_SLACK = 1e-9
"""Shares are sums of quotients."""


@dataclass(frozen=True)
class Requirement:
    """One bound on a share: `macs.int8>=0.8`."""

    what: str
    type: str
    min: float | None
    max: float | None


def parse_requirement(text: str) -> Requirement:
    """Read `macs.int8>=0.8`, `nodes.fp32<=10%`.

    Raises:
        UsageError: the text is not of that form (TF0752).
    """
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is not None:
        what, kind, relation, number, percent = found.groups()
        share = _number(number, percent)
        if what in ATTESTED and kind in _KINDS and share is not None:
            bounds = (share, None) if relation == ">=" else (None, share)
            return Requirement(what, kind, *bounds)
    raise UsageError(
        "TF0752",
        f"'{text}' is not a requirement",
        "write WHAT.TYPE>=SHARE or WHAT.TYPE<=SHARE, in quotes, as in 'macs.int8>=0.8'; WHAT is "
        f"one of {', '.join(ATTESTED)}, TYPE one of {', '.join(_KINDS)}, SHARE lies in 0..1",
    )


def judge(requirement: Requirement, views: Sequence[View]) -> list[Check]:
    """Hold one requirement against the views that it is about.

    MACs must have their types in every view that tells them. Nodes, weights and activations are
    those of the typed ONNX where there is one: networks and engines have layers of their own.
    """
    what, kind = requirement.what, requirement.type
    attested = [view for view in views if view.attested]
    if what != "macs" and any(view.name == TYPED_ONNX for view in attested):
        attested = [view for view in attested if view.name == TYPED_ONNX]
    checks = []
    for view in attested:
        found = view.share(what, QUANTIZED if kind == "quantized" else (kind,))
        facts = (what, kind, None if found is None else found[0], requirement.min, requirement.max)
        checks.append(_held(facts, found, view.name))
    if not checks:
        facts = (what, kind, None, requirement.min, requirement.max)
        checks.append(Check(*facts, "not_run", "nothing", "nothing was attested"))
    return checks


def _held(
    facts: tuple[str, str, float | None, float | None, float | None],
    found: tuple[float, float] | None,
    view: str,
) -> Check:
    what, kind, _, low, high = facts
    if found is None:
        return Check(*facts, "not_run", view, f"it does not tell the {WORDS[what]} by type")
    least, most = found
    said = f"{least:.1%} of the {WORDS[what]} are {kind}"
    if (low is not None and most < low - _SLACK) or (high is not None and least > high + _SLACK):
        return Check(*facts, "fail", view, said)
    if (low is not None and least < low - _SLACK) or (high is not None and most > high + _SLACK):
        unknown = f"{most - least:.1%} are of unknown type"
        return Check(*facts, "not_run", view, f"{said} and {unknown}")
    return Check(*facts, "pass", view)


def _number(text: str, percent: str) -> float | None:
    try:
        share = float(text) / (100 if percent else 1)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
