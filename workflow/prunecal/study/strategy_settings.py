"""The entries of `strategies:` in config.yaml: their sweeps, and whether they fit a model.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.study import schedules
from prunecal.study.fields import plugin_settings
from prunecal.study.schedules import MATCH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from prunecal.core.parameters import Parameters
    from prunecal.study.model_settings import Model

TEXT_SIGNALS = ("text_embeds", "text_segments")  # of a question; made from a text tower


def expand(
    entry: str | dict[str, Any], model_family: str, match: str
) -> list[tuple[str, str, dict[str, Any]]]:
    """Expand one entry of `strategies` into (label, family, parameters) for a model family."""
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
    strategies = []
    for product in itertools.product(*swept.values()):
        values = [
            value + 0.0 if isinstance(value, float) else value for value in product
        ]  # no -0.0
        given = dict(zip(swept, values, strict=True))
        _refuse_own_match(family)
        own_match = given.pop(MATCH, None)
        try:
            params = plugin_settings("strategies", "strategy", family, given)
        except ValueError as error:
            raise PrunecalError(f"config: strategies: {error}") from error
        label, matched = _label(family, params), _match(family, own_match, match)
        _refuse_merging(family, params, model_family)
        fitted = _fit_positions(family, params, model_family).model_dump(mode="json")
        if matched != schedules.KEPT:
            label, fitted = f"{label}-{MATCH}{matched}", fitted | {MATCH: matched}
        strategies.append((label, family, fitted))
    return strategies


def _refuse_own_match(family: str) -> None:
    """Refuse a plugin with a setting that would be taken for that of the study."""
    known = family in plugins.names("strategies")
    if known and MATCH in plugins.load("strategies", family).Params.model_fields:
        raise PrunecalError(
            f"config: strategies: {family} declares the parameter {MATCH!r}, which is the study's "
            "own key for what budgets are matched by; rename it in the plugin"
        )


def _match(family: str, own: Any, of_study: str) -> str:
    """Return what a strategy's budgets are matched by: its own setting, else the study's.

    Raises:
        PrunecalError: an unknown one, or one of a strategy that has a single cost per budget.
    """
    if own is not None and own not in schedules.MATCHES:
        raise PrunecalError(
            f"config: strategies: {family}: match: {brief(own)} is unknown"
            f"{nearest(str(own), list(schedules.MATCHES))}; known are "
            f"{', '.join(schedules.MATCHES)}"
        )
    if plugins.load("strategies", family).PRUNES == "inside_llm":
        return own or of_study
    if own is not None:
        raise PrunecalError(
            f"config: strategies: {family}: match: {own} is of strategies inside the decoder; "
            "before it as many tokens enter every layer as are kept: leave it out"
        )
    return schedules.KEPT


def _refuse_merging(family: str, params: Parameters, model_family: str) -> None:
    """Refuse a strategy that merges tokens for models that have no place for a merged one.

    Raises:
        PrunecalError: names both.
    """
    strategy = plugins.load("strategies", family)
    inside = getattr(strategy, "MERGES", False) and getattr(params, "positions", "") == "compact"
    takes = getattr(plugins.load("models", model_family), "MERGED_TOKENS", True)
    if (inside or hasattr(strategy, "merge")) and not takes:
        raise PrunecalError(
            f"config: strategies: {family} merges visual tokens, but in models of the family "
            f"{model_family} each has its own row and column or text beside it; leave it out"
        )


def _fit_positions(family: str, params: Parameters, model_family: str) -> Parameters:
    """Give kept tokens the positions that a model family knows, unless the study sets them.

    Raises:
        PrunecalError: the study sets others.
    """
    known = getattr(plugins.load("models", model_family), "POSITIONS", ("compact", "original"))
    positions = getattr(params, "positions", None)
    if positions is None or positions in known:
        return params
    if "positions" in params.model_fields_set:
        raise PrunecalError(
            f"config: strategies: {family}: positions: {positions} is not known for models of the "
            f"family {model_family}; give {' or '.join(known)}, or leave it out"
        )
    return params.model_copy(update={"positions": known[0]})


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
    label = "-".join(parts)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", label):
        raise PrunecalError(
            f"config: strategies: {family}: {brief(label)} cannot name a folder; give parameters "
            "as numbers or as words of letters, digits, '.', '_' and '-'"
        )
    return label


def refuse_unfit(family: str, parameters: Mapping[str, Any], model: Model) -> None:
    """Refuse a strategy that reads what no stage computes for models of the family.

    Raises:
        PrunecalError: names the strategy and what is missing.
    """
    strategy, runs = plugins.load("strategies", family), plugins.load("models", model.family)
    resized = model.visual_tokens is not None or not getattr(runs, "OWN_RESOLUTION", False)
    if strategy.PRUNES == "before_tower" and resized:
        raise PrunecalError(
            f"config: strategies: {family} needs images that are read at their own resolution, but "
            f"those of model {model.name!r} ({model.family}) are brought to one size, or cut into "
            "tiles of one size; leave it out, or take `pool`"
        )
    if strategy.PRUNES != "before_llm":
        return
    reads_, given = read_signals(family, parameters), getattr(runs, "SIGNALS", ())
    lacking = sorted(set(reads_) - set(given))
    if lacking:
        raise PrunecalError(
            f"config: strategies: {family} reads {' and '.join(lacking)}, which models of the "
            f"family {model.family} do not give; leave it out"
        )
    if set(reads_) & set(TEXT_SIGNALS) and model.text_tower is None:
        raise PrunecalError(
            f"config: strategies: {family} reads CLIP's embedding of each question, but model "
            f"{model.name!r} names no text tower; give it `text_tower: {{repo: ..., revision: "
            "...}`, or leave the strategy out"
        )
    if model.params().get("per") != "tile":
        return
    if plugins.declared("strategies", strategy, "PER") == "question":
        raise PrunecalError(
            f"config: strategies: {family} ranks tokens for each question, so that tiles cannot be "
            f"ranked apart; leave it out, or set `per: image` for {model.name}"
        )
    if not plugins.declared("strategies", strategy, "NESTED"):
        raise PrunecalError(
            f"config: strategies: {family} selects other tokens at another budget, so that tiles "
            f"cannot be ranked apart; leave it out, or set `per: image` for {model.name}"
        )


def read_signals(family: str, parameters: Mapping[str, Any]) -> list[str]:
    """List what a strategy before the LLM reads with some settings, by the names of signals."""
    strategy = plugins.load("strategies", family)
    if strategy.PRUNES != "before_llm":
        return []
    if not hasattr(strategy, "reads"):  # without settings, of which a study may have thousands
        return sorted(set(plugins.declared("strategies", strategy, "READS").values()))
    return sorted(set(reads(strategy, strategy.Params(**parameters)).values()))


def reads(strategy: ModuleType, params: Parameters) -> Mapping[str, str]:
    """Return what a strategy before the LLM reads with some settings: signals by its own names."""
    if hasattr(strategy, "reads"):
        return strategy.reads(params)
    return plugins.declared("strategies", strategy, "READS")
