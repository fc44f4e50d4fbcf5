"""A study read from its settings, checked, and expanded into cells before anything runs.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import Parameters, sentence
from prunecal.study.settings import Model, Study, plugin_settings, refuse_repeats


@dataclass(frozen=True, order=True)
class Cell:
    """One row of the study's design: a strategy at a budget, for some model and data set.

    `strategy` is its label in paths, `family` the plugin's name, `parameters` its settings as
    sorted pairs, defaults included.
    """

    strategy: str
    family: str
    parameters: tuple[tuple[str, Any], ...]
    budget: int

    def settings(self) -> dict[str, Any]:
        """Return the cell as it stands in the metadata of its predictions."""
        return {
            "strategy": self.strategy,
            "family": self.family,
            "parameters": dict(self.parameters),
            "budget": self.budget,
        }

    @property
    def prunes(self) -> str:
        """Where tokens are dropped: "before_llm" or "inside_llm"."""
        return plugins.load("strategies", self.family).PRUNES


def load_study(settings: Mapping[str, Any]) -> Study:
    """Check a study's settings.

    Raises:
        PrunecalError: the first thing that is wrong, with its key and the nearest valid name.
    """
    if not isinstance(settings, Mapping):
        raise PrunecalError(f"config: {brief(settings)} is no study; give settings as `key: value`")
    try:
        study = Study.model_validate(dict(settings))
    except ValidationError as error:
        raise PrunecalError(f"config: {sentence(error, Study)}") from error
    for model in study.models:
        cells(study, model)
    return study


def cells(study: Study, model: Model) -> list[Cell]:
    """Expand strategies and budgets into cells, in the order of the config, `full` first.

    Raises:
        PrunecalError: an unknown strategy or parameter, a budget out of range, or two equal cells.
    """
    wanted = [strategy for entry in study.strategies for strategy in _strategy(entry)]
    _refuse_repeats("strategies", [label for label, _, _ in wanted])
    if not any(family == "full" for _, family, _ in wanted):
        raise PrunecalError(
            "config: strategies: add `full`, the unpruned model that all others are compared with"
        )
    budgets = [_budget(budget, model) for budget in study.budgets]
    _refuse_repeats(f"budgets of {model.name}", budgets)
    found = [
        Cell(strategy, family, tuple(sorted(parameters.items())), budget)
        for strategy, family, parameters in wanted
        for budget in ([model.visual_tokens] if family == "full" else budgets)
    ]
    return sorted(found, key=lambda cell: cell.family != "full")


def _strategy(entry: str | dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Expand one entry of `strategies` into (label, family, parameters)."""
    settings = {"strategy": entry} if isinstance(entry, str) else dict(entry)
    family = settings.pop("strategy", None)
    if not isinstance(family, str):
        raise PrunecalError(
            f"config: strategies: {brief(entry)} lacks `strategy:`, the strategy's name"
        )
    swept = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
    empty = [key for key, values in swept.items() if not values]
    if empty:
        raise PrunecalError(
            f"config: strategies: {family}: the sweep of {empty[0]} is empty; give it a value"
        )
    found = []
    for values in itertools.product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        try:
            params = plugin_settings("strategies", "strategy", family, chosen)
        except ValueError as error:
            raise PrunecalError(f"config: strategies: {error}") from error
        found.append((_label(family, params), family, params.model_dump(mode="json")))
    return found


def _label(family: str, params: Parameters) -> str:
    """Name a strategy in paths: its family and the parameters that are marked or changed."""
    parts = [family]
    for key, field in type(params).model_fields.items():
        value = getattr(params, key)
        extra = field.json_schema_extra
        named = isinstance(extra, dict) and extra.get("named", False)
        if named or value != field.default:
            text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
            parts.append(f"{key}{text}")
    return "-".join(parts)


def _budget(given: int | str, model: Model) -> int:
    """Return a budget as a number of tokens of this model."""
    total = model.visual_tokens
    if isinstance(given, str):
        budget = round(float(given.removesuffix("%")) / 100 * total)
        shown = f"{given} of the tokens, {budget},"
    else:
        budget = given
        shown = f"{budget} visual tokens"
    if not 1 <= budget <= total:
        raise PrunecalError(
            f"config: budgets: {shown} are not between 1 and the {total} that model "
            f"{model.name!r} has; give a number in that range"
        )
    return budget


def _refuse_repeats(key: str, names: list[Any]) -> None:
    try:
        refuse_repeats(key, names)
    except ValueError as error:
        raise PrunecalError(f"config: {error}") from error
