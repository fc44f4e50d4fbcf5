"""A whole study: the keys of config.yaml, what each accepts, and what it means.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import itertools
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from prunecal.core.errors import brief, nearest
from prunecal.core.parameters import Parameters, sentence
from prunecal.study.budgets import Budgets
from prunecal.study.data_settings import Dataset, Imported
from prunecal.study.fields import budget_form, study_name
from prunecal.study.model_settings import PRECISION, Model, tower_name, variant
from prunecal.study.run_settings import Expected, Inference, Statistics
from prunecal.study.schedules import Match


def _budgets_form(given: Any, check: ValidatorFunctionWrapHandler) -> Budgets:
    """Take a list of budgets, or a mapping with the list and what is matched."""
    if not isinstance(given, dict):
        return Budgets(check(given))
    try:
        block = MatchedBudgets.model_validate(given)
    except ValidationError as error:
        raise ValueError(sentence(error, MatchedBudgets)) from error
    budgets = Budgets(check(block.tokens))
    budgets.match = block.match
    return budgets


def _strategy_form(entry: Any) -> Any:
    if not isinstance(entry, str | dict):
        raise ValueError(  # noqa: TRY004  pydantic takes ValueError alone
            f"{brief(entry)} is neither a strategy's name nor a mapping with `strategy:`"
        )
    return entry


class MatchedBudgets(Parameters):
    """Budgets of a study, and what is equal between its strategies at each of them."""

    tokens: list[Any] = Field(description="the budgets, as in a plain list")
    match: Match = Field(
        "kept",
        description="tokens that are kept in the end, or, of strategies inside the decoder, the "
        "cost of as many in every layer: mean_tokens per layer, or flops",
    )


class Study(Parameters):
    """A study: every model on every data set under every strategy at every budget."""

    title: str = Field(description="first line of the report")
    study: Annotated[str, AfterValidator(study_name)] = Field(
        "", description="folder below results/ for tables and figures; none for results/ itself"
    )
    models: list[Model] = Field(description="the models that are pruned")
    datasets: list[Dataset] = Field(description="what the models are asked")
    strategies: list[Annotated[str | dict[str, Any], BeforeValidator(_strategy_form)]] = Field(
        description="names, or mappings with `strategy:` and its parameters; a list is a sweep",
    )
    budgets: Annotated[
        list[Annotated[int | str, BeforeValidator(budget_form)]], WrapValidator(_budgets_form)
    ] = Field(description="visual tokens kept per image: a number, or '25%' of the model's")
    imported: list[Imported] = Field(
        [], description="cells whose answers come from elsewhere; alone, the four lists are empty"
    )
    inference: Inference = Field(Inference(), description="how the GPU work is cut and run")
    statistics: Statistics = Field(Statistics(), description="the bootstrap and ECE's bins")
    expect: list[Expected] = Field(
        [], description="published values of the unpruned models, first lines of the report"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_model_per_precision(cls, settings: Any) -> Any:
        """Make a model of each of several dtypes or quantizations; its name ends with them."""
        if not isinstance(settings, dict) or not isinstance(settings.get("models"), list):
            return settings
        names: dict[Any, list[str]] = {}
        models: list[Any] = []
        for entry in settings["models"]:
            known = isinstance(entry, dict) and isinstance(entry.get("name"), str)
            # an empty list would leave out the model; as a value of the key it is refused
            swept = [key for key in PRECISION if known and isinstance(entry.get(key), list)]
            swept = [key for key in swept if entry[key]]
            if not swept:
                models.append(entry)
                continue
            variants = [
                dict(zip(swept, values, strict=True))
                for values in itertools.product(*(entry[key] for key in swept))
            ]
            own = [variant(entry | values, swept) for values in variants]
            names[entry["name"]] = [one["name"] for one in own]
            models += own
        settings, values = settings | {"models": models}, settings.get("expect")
        if isinstance(values, list) and all(isinstance(value, dict) for value in values):
            settings["expect"] = [
                value | {"model": name}
                for value in values
                for name in names.get(str(value.get("model")), [value.get("model")])
            ]
        return settings

    @model_validator(mode="after")
    def _bitsandbytes_has_a_gpu(self) -> "Study":
        for model in self.models:
            if model.quantization.startswith("bitsandbytes") and self.inference.device == "cpu":
                raise ValueError(
                    f"quantization = {model.quantization} of model {model.name!r} runs on a GPU "
                    "alone, but inference.device is cpu; use int8 or int4"
                )
        return self

    @model_validator(mode="after")
    def _has_cells(self) -> "Study":
        """Refuse an empty list, unless the study imports all its cells and runs no model."""
        for key in ("models", "datasets", "strategies", "budgets"):
            alone = self.imported and (key == "datasets" or not self.models)
            if not getattr(self, key) and not alone:
                raise ValueError(f"{key} = a list of 0 does not fit; give at least one entry")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "Study":
        models, datasets = ([entry.name for entry in key] for key in (self.models, self.datasets))
        imported = list(dict.fromkeys(one.task for one in self.imported))
        towers = [tower_name(entry.name).lower() for entry in self.models if entry.text_tower]
        taken = [name for name in models if name.lower() in towers]
        if taken:
            raise ValueError(
                f"models: {taken[0]!r} is how another model's text tower is named; rename the model"
            )
        every = {
            "models": models + _further([one for one, _ in imported], models),
            "datasets": datasets + _further([one for _, one in imported], datasets),
        }
        for key, known in every.items():
            refuse_repeats(key, known)
            for one in self.expect:
                name = getattr(one, key.removesuffix("s"))
                if name not in known:
                    raise ValueError(
                        f"expect: {brief(name)} is none of the {key}{nearest(name, known)}; known "
                        f"are {', '.join(known)}"
                    )
        figures: dict[str, tuple[str, str]] = {}
        for model, dataset in dict.fromkeys([*itertools.product(models, datasets), *imported]):
            other = figures.setdefault(f"{model}_{dataset}".lower(), (model, dataset))
            if other != (model, dataset):
                raise ValueError(
                    f"datasets: figures of {dataset!r} under model {model!r} and of {other[1]!r} "
                    f"under {other[0]!r} would have one name; rename a model or a data set"
                )
        return self


def _further(names: list[str], known: list[str]) -> list[str]:
    """List names once each that are not known."""
    return [name for name in dict.fromkeys(names) if name not in known]


def refuse_repeats(key: str, names: list[Any]) -> None:
    """Raise ValueError if a key has two names that are equal or differ in case alone."""
    known: dict[str, Any] = {}
    for name in names:
        folder = str(name).lower()  # some file systems ignore case
        if folder not in known:
            known[folder] = name
        elif known[folder] == name:
            raise ValueError(f"{key}: {name!r} is defined twice; remove one")
        else:
            raise ValueError(
                f"{key}: {known[folder]!r} and {name!r} differ in case alone, and some file "
                "systems take them for one; rename one of them"
            )
