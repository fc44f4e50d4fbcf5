"""Check the settings of a study and expand them into cells, before anything runs.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief, control_character, encodable, nearest
from prunecal.core.parameters import sentence
from prunecal.storage.schemas import MOST_TOKENS
from prunecal.study import schedules
from prunecal.study.budgets import ALL, Budget, Budgets, kept_tokens, share, share_text
from prunecal.study.data_settings import Imported
from prunecal.study.model_settings import Model
from prunecal.study.schedules import MATCH
from prunecal.study.settings import Study, refuse_repeats
from prunecal.study.strategy_settings import expand, refuse_unfit

MOST_VALUES = 1_000_000  # of the settings; more than any study whose results can be read


@dataclass(frozen=True, order=True)
class Cell:
    """One row of the study's design: a strategy at a budget, for some model and data set.

    `strategy` is its label in paths, `family` the plugin's name, `parameters` its settings as
    sorted pairs, defaults included.
    """

    strategy: str
    family: str
    parameters: tuple[tuple[str, Any], ...]
    budget: Budget

    def settings(self) -> dict[str, Any]:
        """Return the cell as the metadata of its predictions hold it."""
        return {
            "strategy": self.strategy,
            "family": self.family,
            "parameters": dict(self.parameters),
            "budget": self.budget,
        }

    @property
    def prunes(self) -> str:
        """Where tokens are dropped, or "everything" is: `PRUNES` of the strategy."""
        return plugins.load("strategies", self.family).PRUNES


def load_study(settings: Mapping[str, Any]) -> Study:
    """Check a study's settings.

    Raises:
        PrunecalError: the first thing that is wrong, with its key and the nearest valid name.
    """
    if not isinstance(settings, Mapping):
        raise PrunecalError(
            f"config: {brief(settings)} is not a study; give settings as `key: value`"
        )
    _refuse_values(settings)
    try:
        study = Study.model_validate(dict(settings))
    except ValidationError as error:
        raise PrunecalError(f"config: {sentence(error, Study)}") from error
    computed = {model.name: cells(study, model) for model in study.models}
    for model in study.models:
        outcome_cell(study, model, computed[model.name])
    _refuse_unfit_for_short_answers(study, computed)
    _check_imported(study, computed)
    return study


def _refuse_unfit_for_short_answers(study: Study, computed: Mapping[str, list[Cell]]) -> None:
    """Refuse strategies with which answers of several tokens are not decoded.

    Raises:
        PrunecalError: names the strategy and the data set.
    """
    short = [dataset.name for dataset in study.datasets if dataset.is_short]
    families = dict.fromkeys(cell.family for listed in computed.values() for cell in listed)
    unfit = [name for name in families if plugins.load("strategies", name).PRUNES != "before_llm"]
    if short and unfit:
        raise PrunecalError(
            f"config: strategies: {unfit[0]} drops no visual tokens before the decoder, which "
            f"short answers need; leave it out, or the data set {short[0]!r}"
        )


def imported_cell(entry: Imported) -> Cell:
    """Return the cell that an entry of `imported:` describes; a share of known N is a number."""
    parameters, budget = tuple(sorted(entry.parameters.items())), entry.budget
    if isinstance(budget, str) and entry.visual_tokens is not None:
        budget = kept_tokens(budget, entry.visual_tokens)
    return Cell(entry.strategy, entry.family or entry.strategy, parameters, budget)


def _check_imported(study: Study, computed: Mapping[str, list[Cell]]) -> None:
    """Refuse imported cells that fit neither each other nor the study's own.

    Raises:
        PrunecalError: two cells are the same, a strategy's label stands for two strategies, a model
            on a data set has no unpruned model or two, or confidences of two kinds.
    """
    own = {entry.name for entry in study.datasets}
    meaning = {
        cell.strategy: (cell.family, cell.parameters)
        for listed in computed.values()
        for cell in listed
    }
    kinds: dict[tuple[str, str], str | None] = {}
    tasks: dict[tuple[str, str], dict[tuple[str, Budget], Cell]] = {}
    for entry in study.imported:
        cell, where = imported_cell(entry), f"config: imported: {entry.model} on {entry.dataset}"
        what = cell.family, cell.parameters
        if meaning.setdefault(cell.strategy, what) != what:
            raise PrunecalError(
                f"{where}: the strategy {cell.strategy!r} has another family or other parameters "
                "elsewhere in the study; give one of them another name"
            )
        if entry.task not in tasks:
            here = computed.get(entry.model, []) if entry.dataset in own else []
            tasks[entry.task] = {(one.strategy, one.budget): one for one in here}
            kinds[entry.task] = None if here else entry.confidence
        if kinds[entry.task] != entry.confidence:
            raise PrunecalError(
                f"{where} has confidences of two kinds, which do not compare; give each kind a "
                "model of its own"
            )
        if tasks[entry.task].setdefault((cell.strategy, cell.budget), cell) is not cell:
            raise PrunecalError(
                f"{where}: {cell.strategy} at {cell.budget} tokens is defined twice; remove one"
            )
    _refuse_repeats("strategies", [*meaning])
    for (model, dataset), known in tasks.items():
        unpruned = sum(cell.family == "full" for cell in known.values())
        if unpruned != 1:
            fault = f"{unpruned} cells" if unpruned else "no cell"
            raise PrunecalError(
                f"config: imported: {model} on {dataset} has {fault} of the family `full`, the "
                "unpruned model that all others are compared with; call exactly one strategy full"
            )


def cells(study: Study, model: Model) -> list[Cell]:
    """Expand strategies and budgets into cells, in the order of the config, `full` first.

    Raises:
        PrunecalError: an unknown strategy or parameter, a budget out of range, or two equal cells.
    """
    match = study.budgets.match if isinstance(study.budgets, Budgets) else schedules.KEPT
    strategies = [
        strategy for entry in study.strategies for strategy in expand(entry, model.family, match)
    ]
    _refuse_repeats("strategies", [label for label, _, _ in strategies])
    if not any(family == "full" for _, family, _ in strategies):
        raise PrunecalError(
            "config: strategies: add `full`, the unpruned model that all others are compared with"
        )
    for _, family, parameters in strategies:
        refuse_unfit(family, parameters, model)
    budgets = [_budget(budget, model) for budget in study.budgets]
    _refuse_repeats(f"budgets of {model.name}", budgets)
    listed = [
        Cell(strategy, family, tuple(sorted(parameters.items())), budget)
        for strategy, family, parameters in strategies
        for budget in (_own_budget(family, model) or budgets)
    ]
    for cell in listed:
        _refuse_unmatched(cell, model)
    return sorted(listed, key=lambda cell: cell.family != "full")


def outcome_cell(study: Study, model: Model, listed: list[Cell]) -> Cell | None:
    """Return the cell of a model by whose answers questions are split, None if they are not.

    Raises:
        PrunecalError: `statistics: outcome_of:` names none of its cells.
    """
    wanted = study.statistics.outcome_of
    if wanted is None:
        return None
    budget = _budget(wanted.budget, model)
    for cell in listed:
        if (cell.strategy, cell.budget) == (wanted.strategy, budget):
            return cell
    known = [cell.strategy for cell in listed]
    hint = "" if wanted.strategy in known else nearest(wanted.strategy, known)
    raise PrunecalError(
        f"config: statistics: outcome_of: {wanted.strategy} at {wanted.budget} is no cell of the "
        f"model {model.name}{hint}; name one of its strategies and budgets"
    )


def _own_budget(family: str, model: Model) -> list[Budget]:
    """Return the one budget of a strategy that keeps all tokens or none."""
    if family == "full":
        return [model.visual_tokens or ALL]
    return [0] if plugins.load("strategies", family).PRUNES == "everything" else []


def _refuse_unmatched(cell: Cell, model: Model) -> None:
    """Refuse a budget whose cost a strategy inside the decoder exceeds whatever it drops.

    By tokens per layer: what exceeds these exceeds the operations, too, which are the same at least
    for the same mean.
    """
    settings = dict(cell.parameters)
    if settings.pop(MATCH, schedules.KEPT) == schedules.KEPT:
        return
    if model.layers is None:
        raise PrunecalError(
            f"config: models: {model.name} lacks `layers:`, the number of its decoder's layers, "
            "from which the cost of a budget is computed; add it, or set `match: kept`"
        )
    strategy, visual = plugins.load("strategies", cell.family), model.most_tokens()
    params, shape = strategy.Params(**settings), schedules.Shape(model.layers)
    try:
        schedules.refuse_unmet(
            lambda left: strategy.stages(visual, left, shape.layers, params),
            schedules.MEAN_TOKENS,
            kept_tokens(cell.budget, visual),
            visual,
            shape,
        )
    except PrunecalError as error:
        raise PrunecalError(f"config: strategies: {cell.strategy}: {error}") from error


def _refuse_values(settings: Mapping[str, Any]) -> None:
    """Refuse what YAML's aliases make large, its bytes and sets, and control characters in texts.

    What stands at several places is walked through once, and its size counted at each.
    """
    sizes: dict[int, float] = {}
    pending: list[tuple[Any, bool]] = [(settings, False)]
    while pending:
        value, inside = pending.pop()
        if isinstance(value, str) and (code := control_character(value)):
            raise PrunecalError(
                f"config: the text {brief(value)} has the control character {code}; remove it"
            )
        if isinstance(value, str) and not encodable(value):
            raise PrunecalError(
                f"config: the text {brief(value)} is not UTF-8; rename the file that it names, or "
                "save the settings as UTF-8"
            )
        if isinstance(value, bytes | Set):  # of YAML's tags, of which JSON knows nothing
            raise PrunecalError(
                f"config: {brief(value)} is no setting; give text, numbers or a list"
            )
        if isinstance(value, Mapping):
            parts = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            parts = [*value]
        else:
            continue
        if inside:
            sizes[id(value)] = 1 + sum(sizes.get(id(part), 1) for part in parts)
        elif id(value) not in sizes:
            sizes[id(value)] = math.inf  # as long as it is not left: the size of what holds itself
            pending += [(value, True), *((part, False) for part in parts)]
            continue
        if sizes[id(value)] > MOST_VALUES:
            raise PrunecalError(
                f"config: the settings hold more than {MOST_VALUES:,} values once YAML's aliases "
                "(`*name`) are written out; remove aliases of aliases"
            )


def _budget(setting: Budget, model: Model) -> Budget:
    """Return a budget as a number of tokens of this model, or as it is where images differ."""
    total = model.visual_tokens
    if isinstance(setting, str):
        if total is None:
            if not 0 < share(setting) <= 1:
                raise PrunecalError(
                    f"config: budgets: {setting} is not a share of an image's tokens; give more "
                    "than 0% and at most 100%"
                )
            return share_text(setting)
        budget = round(share(setting) * total)
        text = f"{setting} of the tokens, {budget},"
    else:
        budget = setting
        text = f"{budget} visual tokens"
    most = total or MOST_TOKENS
    if not 1 <= budget <= most:
        raise PrunecalError(
            f"config: budgets: {text} are not between 1 and the {most} that model "
            f"{model.name!r} has; give a number in that range"
        )
    return budget


def _refuse_repeats(key: str, names: list[Any]) -> None:
    try:
        refuse_repeats(key, names)
    except ValueError as error:
        raise PrunecalError(f"config: {error}") from error
