"""What a budget is to be held on: a model, its samples, and those that judge the chosen mix."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.graph.model import Model
from trtforge.graph.sources.source import DataSource
from trtforge.pipeline.budget_samples import Data, trial_of
from trtforge.pipeline.budgeting import Answer, Judge, Question, hold_budget
from trtforge.pipeline.measures import measure_of, meets, shown
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import TypedModel
from trtforge.precision.mixes import mixes_of, with_bias_shifts

if TYPE_CHECKING:
    from trtforge.recipe.schema import Precision


@dataclass(frozen=True, eq=False)
class Setting:
    """A budget, and what it is held on.

    Attributes:
        original: the ONNX file that mixes are compared with.
        precision: what is asked for, the budget with it.
        folder: where the metric's code is looked for.
        searched: the samples of the search.
        fitting: the samples that quantization is fitted to; None where there are none.
        judging: other samples, that the chosen mix is judged on; None where there are none.
    """

    original: Path
    precision: "Precision"
    folder: Path
    searched: Data
    fitting: DataSource | None
    judging: Data | None = None

    def question(
        self,
        model: Model,
        cache: CalibrationCache | None,
        tell: Callable[[float | None, str], None],
        log: Path | None = None,
    ) -> Question:
        """Run the original, and find the mixes of a model.

        Args:
            model: the optimized FP32 model, as techniques left it.
            cache: its ranges; None where nothing is quantized.
            tell: told the fraction done (0..1, None: unknown) and a line of text.
            log: the file that evaluations are kept in.

        Raises:
            DataError: there are no labels, or the metric's code failed.
            GraphError: a graph is refused.
        """
        budget, data = self.precision.budget, self.searched
        assert budget is not None, "there is one"
        trial = trial_of(Model.load(self.original), data, budget.measure)
        measure = measure_of(budget, self.folder, trial.labels)
        if cache is not None:
            tell(None, "measuring what quantization shifts in the mean")
            cache = with_bias_shifts(cache, model, self.precision, self.fitting)
        mixes = mixes_of(model, cache, self.precision, data.shapes)
        return Question(mixes, measure, trial, budget.evaluations, log)

    def judge(self) -> Judge | None:
        """Return what judges on samples that are not searched on, None where nothing can.

        Raises:
            DataError, GraphError: as `question`.
        """
        budget, data = self.precision.budget, self.judging
        assert budget is not None, "there is one"
        if data is None or data.role == self.searched.role:
            return None
        if budget.top1_drop is not None and data.labels is None:
            return None
        trial = trial_of(Model.load(self.original), data, budget.measure)
        return Judge(measure_of(budget, self.folder, trial.labels), trial)


@dataclass(frozen=True, eq=False)
class Held:
    """A budget that is held.

    Attributes:
        answer: what was chosen, and what was tried.
        judged: what other samples say of it, as JSON data; None where there are none.
        warnings: what the user should know of it.
    """

    answer: Answer
    judged: dict[str, Any] | None
    warnings: tuple[str, ...]

    @property
    def precision(self) -> "Precision":
        """What makes the chosen mix: keep rules in place of the budget."""
        return self.answer.mixes.settled(self.answer.chosen.mix)

    def typed(self) -> TypedModel:
        """Make the chosen mix."""
        return self.answer.mixes.typed(self.answer.chosen.mix)

    def rule_lines(self) -> list[str]:
        """Lines of YAML for a recipe's `precision`, which make the chosen mix."""
        return self.answer.mixes.rule_lines(self.answer.chosen.mix)

    def lines(self) -> list[str]:
        """The table of mixes, and what other samples say of the chosen one."""
        lines = self.answer.lines()
        if self.judged is not None and self.judged["value"] is not None:
            value = shown(self.answer.question.measure, self.judged["value"])
            verdict = "meets" if self.judged["meets"] else "misses"
            on = f"{self.judged['samples']} samples of {self.judged['on']}"
            lines.append(f"judged on {on}: {value}, which {verdict} the budget")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return what was chosen and tried as plain JSON data."""
        return self.answer.as_json() | {"judged": self.judged}


def held_on(
    setting: Setting,
    model: Model,
    cache: CalibrationCache | None,
    tell: Callable[[float | None, str], None],
    log: Path | None = None,
) -> Held:
    """Search for the cheapest mix that meets the budget; arguments as of `Setting.question`.

    Raises:
        BudgetError: TF0560, no mix that was tried meets the bound.
        DataError: there are no labels, or the metric's code failed.
        GraphError: a graph is refused.
    """
    question = setting.question(model, cache, tell, log)
    judge = setting.judge()
    answer, value = hold_budget(question, judge, tell)
    role = question.trial.data.role
    if judge is None or value is None:
        return Held(answer, None, (f"the budget is met on {role}, and judged on no other samples",))
    on, held = judge.trial.data.role, meets(judge.measure, value)
    number = value if math.isfinite(value) else None
    found = {"on": on, "samples": judge.trial.samples, "value": number, "meets": held}
    missed = (
        f"the chosen mix has {shown(judge.measure, value)} on {on}, which misses the budget of "
        f"{judge.measure.bound:g} that it meets on {role}"
    )
    return Held(answer, found, () if held else (missed,))
