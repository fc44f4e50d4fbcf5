"""The study's settings: read, checked and expanded into cells before anything runs.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunecal import plugins
from prunecal.errors import PrunecalError, nearest
from prunecal.parameters import Parameters

RESERVED = ("datasets", "models", "studies")  # folders of results/ that are no model's


def _path_safe(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in RESERVED:
        raise ValueError(
            f"{name!r} cannot name a folder: use letters, digits, '.', '_' and '-', "
            f"and none of {', '.join(RESERVED)}"
        )
    return name


def _known_plugin(folder: str) -> AfterValidator:
    def check(name: str) -> str:
        try:
            plugins.module_name(folder, name)
        except PrunecalError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_path_safe)]


class Model(Parameters):
    """A model: a family that knows how to run it, and one source of weights."""

    name: Name = Field(description="names the model in paths, tables and figures")
    family: Annotated[str, _known_plugin("models")] = Field(
        description="code that runs it: a file of workflow/prunecal/models"
    )
    visual_tokens: int = Field(ge=1, description="visual tokens per image without pruning (N)")
    template: str = Field("vicuna_v1", description="conversation template around each question")
    image: Literal["pad", "crop"] = Field(
        "pad", description="pad images to a square with the mean colour, or crop their centre"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="type of weights and activations; logits are float32 always"
    )
    repo: str | None = Field(None, description="source: a repository on the Hugging Face Hub")
    revision: str | None = Field(None, description="commit of that repository")
    path: str | None = Field(None, description="source: a local folder in the Hub's layout")
    train: dict[str, Any] | None = Field(
        None, description="source: `recipe:` a file of workflow/prunecal/recipes, and its settings"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        sources = [key for key in ("repo", "path", "train") if getattr(self, key) is not None]
        if len(sources) != 1:
            raise ValueError("give exactly one source of weights: repo (+ revision), path or train")
        if self.repo and not self.revision:
            raise ValueError("give the revision (commit) of the repo, so that the study is pinned")
        if self.train is not None:
            settings = dict(self.train)
            recipe = settings.pop("recipe", None)
            _check_plugin("recipes", "recipe", recipe, settings)
        return self

    def source(self) -> dict[str, Any]:
        """Return the settings that decide which weights these are."""
        wanted = ("family", "repo", "revision", "path", "train")
        return {key: value for key in wanted if (value := getattr(self, key)) is not None}

    def run_settings(self) -> dict[str, Any]:
        """Return the settings that decide how these weights are run."""
        wanted = ("family", "visual_tokens", "template", "image", "dtype")
        return {key: getattr(self, key) for key in wanted}


class Dataset(BaseModel):
    """A data set: `loader:` is a file of workflow/prunecal/datasets, the rest are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name = Field(description="names the data set in paths, tables and figures")
    loader: Annotated[str, _known_plugin("datasets")] = Field(
        description="code that reads it: a file of workflow/prunecal/datasets"
    )

    @model_validator(mode="after")
    def _settings_fit_loader(self) -> "Dataset":
        _check_plugin("datasets", "loader", self.loader, self.model_extra or {})
        return self

    def params(self) -> dict[str, Any]:
        """Return the loader's settings, defaults filled in."""
        params = plugins.load("datasets", self.loader).Params(**(self.model_extra or {}))
        return params.model_dump(mode="json")


class Inference(Parameters):
    """How the GPU work is cut and run. Nothing here changes which tokens are kept."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if seen")
    threads: int = Field(
        1, ge=1, description="CPU threads of a job; fixed, so that results do not depend on cores"
    )
    batch_tokens: int = Field(
        4096, ge=1, description="tokens per micro-batch; halved with a warning if memory runs out"
    )
    cells_per_job: int = Field(
        32, ge=1, description="cells that share a process, and so one start-up and one model load"
    )
    gpus_per_job: int = Field(0, ge=0, description="GPUs that a job asks the scheduler for")
    mem_mb: int = Field(4000, ge=500, description="memory that a job asks for, MB, first attempt")
    runtime: int = Field(60, ge=1, description="minutes that a job asks for, first attempt")


class Statistics(Parameters):
    """The image-clustered bootstrap and the calibration bins."""

    resamples: int = Field(2000, ge=100, description="bootstrap resamples of images")
    level: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(0, ge=0, description="seed of the resamples and of recalibration folds")
    bins: int = Field(15, ge=2, description="equal-width confidence bins of ECE")


class Study(Parameters):
    """A study: every model on every data set under every strategy at every budget."""

    title: str = Field(description="first line of the report")
    study: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$", description="folder below results/ for tables and figures"
    )
    models: list[Model] = Field(min_length=1)
    datasets: list[Dataset] = Field(min_length=1)
    strategies: list[str | dict[str, Any]] = Field(
        min_length=1,
        description="names, or mappings with `strategy:` and its parameters; a list is a sweep",
    )
    budgets: list[Annotated[int, Field(ge=1, strict=True)] | str] = Field(
        min_length=1, description="visual tokens kept per image: a number, or '25%' of the model's"
    )
    inference: Inference = Inference()
    statistics: Statistics = Statistics()

    @model_validator(mode="after")
    def _names_differ(self) -> "Study":
        for key in ("models", "datasets"):
            _refuse_repeats(key, [entry.name for entry in getattr(self, key)])
        return self


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
    def place(self) -> str:
        """Where tokens are dropped: "vision" (before the LLM) or "decoder" (inside it)."""
        return plugins.load("strategies", self.family).PLACE


def load_study(settings: Mapping[str, Any]) -> Study:
    """Check a study's settings.

    Raises:
        PrunecalError: the first thing that is wrong, with its key and the nearest valid name.
    """
    try:
        study = Study(**settings)
    except ValidationError as error:
        raise PrunecalError(_sentence(error, Study)) from error
    for model in study.models:
        cells(study, model)
    return study


def cells(study: Study, model: Model) -> list[Cell]:
    """Expand strategies and budgets into cells, in the order of the config, `full` first.

    Raises:
        PrunecalError: an unknown strategy or parameter, a budget out of range, or two equal cells.
    """
    wanted = [_strategy(entry) for entry in study.strategies]
    wanted = [pair for pairs in wanted for pair in pairs]
    _refuse_repeats("strategies", [strategy for strategy, _, _ in wanted], PrunecalError)
    if not any(family == "full" for _, family, _ in wanted):
        raise PrunecalError(
            "config: strategies: add `full`, the unpruned model that all others are compared with"
        )
    budgets = [_budget(budget, model) for budget in study.budgets]
    _refuse_repeats(f"budgets (for model {model.name})", budgets, PrunecalError)
    found = [
        Cell(strategy, family, tuple(sorted(parameters.items())), budget)
        for strategy, family, parameters in wanted
        for budget in ([model.visual_tokens] if family == "full" else budgets)
    ]
    return sorted(found, key=lambda cell: cell.family != "full")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml, plugins' settings included, for editors."""
    schema = Study.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    dataset = schema["$defs"]["Dataset"]["properties"]
    schema["$defs"]["Dataset"] = {
        "description": Dataset.__doc__,
        "oneOf": [
            _plugin_schema("datasets", name, {**dataset, "loader": {"const": name}}, ["name"])
            for name in plugins.names("datasets")
        ],
    }
    schema["properties"]["strategies"]["items"] = {
        "anyOf": [
            {"enum": plugins.names("strategies")},
            *(
                _plugin_schema("strategies", name, {"strategy": {"const": name}}, [], sweep=True)
                for name in plugins.names("strategies")
            ),
        ]
    }
    return schema


def _strategy(entry: str | dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Expand one entry of `strategies` into (label, family, parameters)."""
    settings = {"strategy": entry} if isinstance(entry, str) else dict(entry)
    family = settings.pop("strategy", None)
    if not isinstance(family, str):
        raise PrunecalError(f"config: strategies: {entry} lacks `strategy:`, the strategy's name")
    swept = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
    found = []
    for values in itertools.product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        try:
            params = _check_plugin("strategies", "strategy", family, chosen)
        except ValueError as error:
            raise PrunecalError(f"config: strategies: {error}") from error
        found.append((_label(family, params), family, params.model_dump(mode="json")))
    return found


def _label(family: str, params: Parameters) -> str:
    """Name a strategy in paths: its family and the parameters that are marked or changed."""
    parts = [family]
    for key, field in type(params).model_fields.items():
        value = getattr(params, key)
        named = (field.json_schema_extra or {}).get("named", False)
        if named or value != field.default:
            text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
            parts.append(f"{key}{text}")
    return "-".join(parts)


def _budget(budget: int | str, model: Model) -> int:
    total = model.visual_tokens
    if isinstance(budget, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", budget)
        if not match:
            raise PrunecalError(
                f"config: budgets: {budget!r} is neither a number of tokens nor a share like '25%'"
            )
        budget = round(float(match[1]) / 100 * total)
    if not 1 <= budget <= total:
        raise PrunecalError(
            f"config: budgets: {budget} visual tokens are not between 1 and the "
            f"{total} that model {model.name!r} has"
        )
    return budget


def _check_plugin(folder: str, key: str, name: Any, settings: Mapping[str, Any]) -> Parameters:
    """Check a plugin's settings; ValueError, so that pydantic can tell where they stood."""
    if not isinstance(name, str):
        raise ValueError(f"`{key}:` must be one of {', '.join(plugins.names(folder))}")  # noqa: TRY004
    try:
        kind = plugins.load(folder, name).Params
    except PrunecalError as error:
        raise ValueError(str(error)) from error
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ValueError(f"{name}: {_sentence(error, kind, prefix='')}") from error


def _refuse_repeats(key: str, names: list[Any], error: type[Exception] = ValueError) -> None:
    for name in names:
        if names.count(name) > 1:
            raise error(f"config: {key}: {name!r} stands there twice; remove one")


def _sentence(error: ValidationError, kind: type[BaseModel], prefix: str = "config: ") -> str:
    """Turn pydantic's first complaint about a `kind` into one readable sentence."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *blocks, name = first["loc"]
        known = _known_keys(kind, blocks)
        return f"{prefix}{place} is unknown{nearest(str(name), known)}; known: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{prefix}{place} is missing; add it"
    message = str(first.get("ctx", {}).get("error", first["msg"]))
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | None) else ""
    return f"{prefix}{place}: {message}{shown}" if place else f"{prefix}{message}"


def _known_keys(kind: Any, blocks: list[int | str]) -> list[str]:
    """List the valid keys of the block below `kind` in which an unknown key stood."""
    for block in blocks:
        if isinstance(block, str):
            kind = kind.model_fields[block].annotation
            kind = next(iter(get_args(kind)), kind)  # list[Model] -> Model
    return list(kind.model_fields)


def _plugin_schema(
    folder: str, name: str, head: dict[str, Any], required: list[str], *, sweep: bool = False
) -> dict[str, Any]:
    module = plugins.load(folder, name)
    properties = module.Params.model_json_schema().get("properties", {})
    if sweep:
        properties = {
            key: {"anyOf": [value, {"type": "array", "items": value}]}
            for key, value in properties.items()
        }
    return {
        "type": "object",
        "properties": {**head, **properties},
        "required": [*required, next(key for key in head if "const" in head[key])],
        "additionalProperties": False,
    }
