"""Check the settings of a study and expand them into cells, before anything runs.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief, control_character, nearest
from prunecal.core.parameters import Parameters, sentence
from prunecal.storage.schemas import MOST_TOKENS
from prunecal.study import schedules
from prunecal.study.budgets import ALL, Budget, Budgets, kept_tokens, share, share_text
from prunecal.study.data_settings import Imported
from prunecal.study.fields import plugin_settings
from prunecal.study.model_settings import Model
from prunecal.study.schedules import MATCH
from prunecal.study.settings import Study, refuse_repeats

TEXT_SIGNALS = ("text_embeds", "text_segments")  # of a question; made from a text tower
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
        """Where tokens are dropped: "before_tower", "before_llm", "inside_llm"; "everything" is."""
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
    for (model, dataset), known in tasks.items():
        unpruned = sum(cell.family == "full" for cell in known.values())
        if unpruned != 1:
            fault = f"{unpruned} cells" if unpruned else "no cell"
            raise PrunecalError(
                f"config: imported: {model} on {dataset} has {fault} of the family `full`, the "
                "unpruned model that all others are compared with; give exactly one"
            )


def cells(study: Study, model: Model) -> list[Cell]:
    """Expand strategies and budgets into cells, in the order of the config, `full` first.

    Raises:
        PrunecalError: an unknown strategy or parameter, a budget out of range, or two equal cells.
    """
    match = study.budgets.match if isinstance(study.budgets, Budgets) else schedules.KEPT
    strategies = [
        strategy for entry in study.strategies for strategy in _strategy(entry, model.family, match)
    ]
    _refuse_repeats("strategies", [label for label, _, _ in strategies])
    if not any(family == "full" for _, family, _ in strategies):
        raise PrunecalError(
            "config: strategies: add `full`, the unpruned model that all others are compared with"
        )
    for _, family, parameters in strategies:
        _refuse_unfit(family, parameters, model)
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


def _refuse_unfit(family: str, parameters: Mapping[str, Any], model: Model) -> None:
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
    by_tile = model.params().get("per") == "tile"
    if by_tile and not plugins.declared("strategies", strategy, "NESTED"):
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


def _refuse_values(settings: Mapping[str, Any]) -> None:
    """Refuse settings that YAML's aliases make large, and control characters in any text.

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


def _strategy(
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
