"""The blocks of config.yaml: their keys, what each accepts, and what it means.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.core.parameters import Commit, LocalPath, Parameters, sentence
from prunecal.storage.schemas import MOST_TOKENS
from prunecal.study.budgets import ALL, SHARE, Budget, Budgets, share, share_text
from prunecal.study.prompts import TEMPLATES
from prunecal.study.schedules import Match
from prunecal.study.short_answers import FORM, SUFFIX

# folders of results/ and results/{study}/ that hold other things
RESERVED = ("datasets", "models", "studies", "scores", "figures", "tables", "benchmark", "results")
FILE_SUFFIXES = (".parquet", ".safetensors", ".csv", ".json", ".html")  # of files beside folders
BETWEEN_STUDIES = "-vs-"  # results/studies/{a}-vs-{b}
SLURM_KEYS = ("slurm_partition", "gpu_model", "slurm_extra")  # keys of `inference:` for SLURM alone
PRECISION = ("dtype", "quantization")  # keys of a model of which a list makes several models
PLAIN = "none"  # not quantized
OPTION = r"--[a-z][a-z-]*(=[\w.,:@%+/-]+)?"  # of sbatch


def _path_safe(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name.lower() in RESERVED:
        raise ValueError(
            f"{brief(name)} cannot name a folder; begin with a letter or digit, go on with those, "
            f"'.', '_' and '-', 100 in all, and take none of {', '.join(RESERVED)}"
        )
    if name.lower().endswith(FILE_SUFFIXES):
        raise ValueError(
            f"{brief(name)} cannot name a folder, because files beside it end like that; "
            f"give a name without {', '.join(FILE_SUFFIXES)} at its end"
        )
    return name


def _study_name(name: str) -> str:
    if BETWEEN_STUDIES in name:
        raise ValueError(
            f"{brief(name)} holds {BETWEEN_STUDIES!r}, which stands between the names of two "
            "compared studies; give another name"
        )
    return name and _path_safe(name)


def _fits(pattern: str, example: str) -> AfterValidator:
    """Refuse what is more than the wanted words of a scheduler's command line."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{brief(value)} does not fit; give for example {example}")
        return value

    return AfterValidator(check)


LOCAL_PATH = TypeAdapter(LocalPath)


def _home_known(path: str) -> str:
    LOCAL_PATH.validate_python(path)  # kept: the home folder's path is never written
    return path


def _known_template(name: str) -> str:
    if name not in TEMPLATES:
        raise ValueError(
            f"{name!r} is unknown{nearest(name, list(TEMPLATES))}; known are {', '.join(TEMPLATES)}"
        )
    return name


def _budget_form(budget: Any) -> Any:
    if isinstance(budget, str) and re.fullmatch(r"\d{1,9}", budget):
        return int(budget)  # `snakemake --config budgets=[64]` gives text
    if isinstance(budget, str) and SHARE.fullmatch(budget):
        return budget
    if isinstance(budget, int) and not isinstance(budget, bool) and abs(budget) < 10**9:
        return budget
    raise ValueError(f"{brief(budget)} is neither a whole number of tokens nor a share like '25%'")


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


def _imported_budget(budget: Any) -> Any:
    if budget == ALL:
        return budget
    try:
        budget = _budget_form(budget)
    except ValueError as error:
        raise ValueError(f"{error}, nor {ALL!r}") from error
    fits = 1 <= budget <= MOST_TOKENS if isinstance(budget, int) else 0 < share(budget) <= 1
    if not fits:
        raise ValueError(
            f"{brief(budget)} is neither between 1 and {MOST_TOKENS} tokens nor a share above 0% "
            "and up to 100%"
        )
    return budget if isinstance(budget, int) else share_text(budget)


def _strategy_form(entry: Any) -> Any:
    if not isinstance(entry, str | dict):
        raise ValueError(  # noqa: TRY004  pydantic takes ValueError alone
            f"{brief(entry)} is neither a strategy's name nor a mapping with `strategy:`"
        )
    return entry


def _known_plugin(folder: str) -> AfterValidator:
    def check(name: str) -> str:
        try:
            plugins.module_name(folder, name)
        except PrunecalError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_path_safe)]


class MatchedBudgets(Parameters):
    """Budgets of a study, and what is equal between its strategies at each of them."""

    tokens: list[Any] = Field(description="the budgets, as in a plain list")
    match: Match = Field(
        "kept",
        description="tokens that are kept in the end, or, of strategies inside the decoder, the "
        "cost of as many in every layer: mean_tokens per layer, or flops",
    )


class TextTower(Parameters):
    """The text half of a CLIP, for strategies that compare patches with the question's text."""

    repo: str | None = Field(None, description="source: a repository on the Hugging Face Hub")
    revision: Commit | None = Field(None, description="commit of that repository")
    path: Annotated[str, AfterValidator(_home_known)] | None = Field(
        None, description="source: a local folder, as transformers or OpenCLIP save a CLIP"
    )
    activation: Literal["quick_gelu", "gelu"] | None = Field(
        None, description="of its layers; only where the checkpoint's configuration is silent"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "TextTower":
        if (self.repo is None) == (self.path is None):
            raise ValueError("give one source of the text tower: repo (+ revision) or path")
        if (self.repo is None) != (self.revision is None):
            raise ValueError("give repo and revision (commit) of the text tower together")
        return self

    def source(self) -> dict[str, Any]:
        """Return the settings that decide which weights these are."""
        return self.model_dump(mode="json", exclude_none=True)


class Model(Parameters):
    """A model: a family that knows how to run it, and one source of weights.

    Further settings are those of its family, a file of workflow/prunecal/models.
    """

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="names the model in paths, tables and figures")
    family: Annotated[str, _known_plugin("models")] = Field(
        description="code that runs it: a file of workflow/prunecal/models"
    )
    visual_tokens: int | None = Field(
        None,
        ge=1,
        le=MOST_TOKENS,
        description="visual tokens per image without pruning (N); not of a family whose images "
        "have different numbers",
    )
    layers: int | None = Field(
        None,
        ge=2,
        le=10_000,
        description="layers of the decoder; only for budgets that are matched by cost",
    )
    template: Annotated[str, AfterValidator(_known_template)] = Field(
        "vicuna_v1", description="conversation template around each question"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="type of weights and activations; logits are float32 always"
    )
    quantization: Literal["none", "int8", "int4", "bitsandbytes-int8", "bitsandbytes-nf4"] = Field(
        "none",
        description="the weights of the decoder's layers, once loaded: int8 or int4 by torchao, or "
        "those of bitsandbytes, on a GPU alone",
    )
    group_size: Literal[32, 64, 128, 256] | None = Field(
        None, description="weights that share a scale in int4; 128 if not given"
    )
    repo: str | None = Field(None, description="source: a repository on the Hugging Face Hub")
    revision: Commit | None = Field(None, description="commit of that repository")
    path: Annotated[str, AfterValidator(_home_known)] | None = Field(
        None, description="source: a local folder in the Hub's layout"
    )
    train: dict[str, Any] | None = Field(
        None, description="source: `recipe:` a file of workflow/prunecal/recipes, and its settings"
    )
    text_tower: TextTower | None = Field(
        None, description="CLIP that embeds questions, for strategies that read them so"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        sources = [key for key in ("repo", "path", "train") if getattr(self, key) is not None]
        if len(sources) != 1:
            raise ValueError("give exactly one source of weights: repo (+ revision), path or train")
        if self.repo is not None and not self.revision:
            raise ValueError("give the revision (commit) of the repo, so that the study is pinned")
        if self.revision is not None and self.repo is None:
            raise ValueError("a revision belongs to a repo; remove it")
        if self.train is not None:
            settings = dict(self.train)
            recipe = settings.pop("recipe", None)
            plugin_settings("recipes", "recipe", recipe, settings)
        return self

    @model_validator(mode="after")
    def _groups_are_of_int4(self) -> "Model":
        if self.group_size is not None and self.quantization != "int4":
            raise ValueError("group_size belongs to `quantization: int4`; remove it")
        return self

    @model_validator(mode="after")
    def _fits_family(self) -> "Model":
        kind = params_of("models", self.family)
        for key, value in (self.model_extra or {}).items():
            if key not in kind.model_fields:  # as for a block that allows no further keys
                known = [*type(self).model_fields, *kind.model_fields]
                fault = PydanticCustomError("extra_forbidden", "unknown", {"known": known})
                line = InitErrorDetails(type=fault, loc=(key,), input=value)
                raise ValidationError.from_exception_data("Model", [line])
        settings = plugin_settings("models", "family", self.family, self.model_extra or {})
        varies = _most_tokens(self.family, settings) is not None
        if varies and self.visual_tokens is not None:
            raise ValueError(
                f"visual_tokens of the model {self.name!r} depend on the image; remove the key"
            )
        if not varies and self.visual_tokens is None:
            line = InitErrorDetails(type="missing", loc=("visual_tokens",), input={})
            raise ValidationError.from_exception_data("Model", [line])
        return self

    def params(self) -> dict[str, Any]:
        """Return the settings of its family, defaults filled in."""
        params = plugin_settings("models", "family", self.family, self.model_extra or {})
        return params.model_dump(mode="json")

    def most_tokens(self) -> int:
        """Return the largest number of visual tokens that an image can have."""
        if self.visual_tokens is not None:
            return self.visual_tokens
        settings = plugin_settings("models", "family", self.family, self.model_extra or {})
        return _most_tokens(self.family, settings) or MOST_TOKENS

    def picture(self) -> str:
        """Return how images are shown as the model sees them: "pad", "crop" or "stretch"."""
        return str(self.params().get("image", "stretch"))

    def source(self) -> dict[str, Any]:
        """Return the settings that decide which weights these are."""
        wanted = ("family", "repo", "revision", "path", "train")
        return {key: value for key in wanted if (value := getattr(self, key)) is not None}

    def run_settings(self) -> dict[str, Any]:
        """Return the settings that decide how these weights are run."""
        wanted = ("family", "visual_tokens", "template", "dtype")
        settings = {key: getattr(self, key) for key in wanted} | self.params()
        if self.quantization != PLAIN:
            settings["quantization"] = self.quantization
        if self.quantization == "int4":
            settings["group_size"] = self.group_size or 128
        return settings


class Dataset(BaseModel):
    """A data set: `loader:` is a file of workflow/prunecal/datasets, the rest are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name = Field(description="names the data set in paths, tables and figures")
    loader: Annotated[str, _known_plugin("datasets")] = Field(
        description="code that reads it: a file of workflow/prunecal/datasets"
    )

    @model_validator(mode="after")
    def _settings_fit_loader(self) -> "Dataset":
        settings = self.model_extra or {}
        plugin_settings("datasets", "loader", self.loader, settings)
        if self.is_short != self.name.endswith(SUFFIX):
            raise ValueError(
                f"a data set of short answers is called so everywhere, and no other, since its "
                f"confidence is another one: name it {self.name.removesuffix(SUFFIX)}{SUFFIX} and "
                f"set `form: {FORM}`, or neither"
            )
        empty = [key for key, value in settings.items() if value is None]
        if empty:
            raise ValueError(f"`{empty[0]}:` has no value; give one or remove the line")
        return self

    @property
    def is_short(self) -> bool:
        """Whether its questions have short answers rather than options."""
        return (self.model_extra or {}).get("form") == FORM

    def params(self) -> dict[str, Any]:
        """Return the loader's settings, defaults filled in."""
        params = plugins.load("datasets", self.loader).Params(**(self.model_extra or {}))
        return params.model_dump(mode="json")


class Imported(Parameters):
    """A cell whose answers come from elsewhere: rows of a file, see docs/import-answers.md."""

    model: Name = Field(
        description="the model that answered; it ends in -verbalised, -sampled or -sequence if "
        "its confidence is of that kind"
    )
    dataset: Name = Field(description="the data set; of `datasets:` or only in such files")
    strategy: Name = Field("full", description="names the strategy in paths and tables")
    family: str | None = Field(
        None, min_length=1, max_length=100, description="strategy family; `strategy:` if not given"
    )
    parameters: dict[str, bool | int | FiniteFloat | str | None] = Field(
        {}, description="the strategy's parameters"
    )
    budget: Annotated[Budget, BeforeValidator(_imported_budget)] = Field(
        description="visual tokens kept per image; where images differ in them, a share such as "
        "'25%', or 'all'"
    )
    visual_tokens: int | None = Field(
        None, ge=1, le=MOST_TOKENS, description="visual tokens per image without pruning (N)"
    )
    tokens_per_layer: FiniteFloat | None = Field(
        None, gt=0, description="visual tokens that a layer computes on, on average"
    )
    file: Annotated[str, AfterValidator(_home_known)] = Field(
        description="parquet, JSON, CSV or TSV; of a file of several cells the rows of this one"
    )
    confidence: Literal["verbalised", "sampled", "sequence"] | None = Field(
        None,
        description="how a confidence without option scores came about: put into words by "
        "the model, the share of sampled answers that agree, or the probability of a whole answer",
    )

    @model_validator(mode="after")
    def _kind_is_named(self) -> "Imported":
        kinds = get_args(get_args(type(self).model_fields["confidence"].annotation)[0])
        for kind in kinds:
            named = self.model.endswith(f"-{kind}")
            if named != (self.confidence == kind):
                raise ValueError(
                    f"a model whose confidence is {kind} is called so everywhere, and no other: "
                    f"name it {self.model.removesuffix(f'-{kind}')}-{kind} and set `confidence: "
                    f"{kind}`, or neither"
                )
        return self

    @property
    def task(self) -> tuple[str, str]:
        """The names of the model and the data set."""
        return self.model, self.dataset


class Inference(Parameters):
    """How the GPU work is cut and run. Nothing here changes which tokens are kept."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU if there is one, and must have one if jobs request it"
    )
    threads: int = Field(
        1,
        ge=1,
        le=1024,
        description="CPU threads of a job; fixed, so that results do not depend on cores",
    )
    batch_tokens: int = Field(
        4096,
        ge=1,
        le=10**9,
        description="tokens per micro-batch; halved with a warning if memory runs out",
    )
    cells_per_job: int = Field(
        32,
        ge=1,
        le=10**6,
        description="cells that share a process, and so one start-up and one model load",
    )
    gpus_per_job: int = Field(0, ge=0, le=1024, description="GPUs that a job requests")
    mem_mb: int | None = Field(
        None,
        ge=500,
        le=10**9,
        description="MB that a job requests at first; if not given, as the model needs",
    )
    runtime: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="minutes that a job requests at first; if not given, as model and data need",
    )
    slurm_partition: Annotated[str, _fits(r"[\w.,-]+", "gpu")] | None = Field(
        None, description="SLURM: partition of the jobs that run a model"
    )
    gpu_model: Annotated[str, _fits(r"[\w.]+", "h200")] | None = Field(
        None, description="SLURM: model of their GPUs, as the cluster names it"
    )
    slurm_extra: Annotated[str, _fits(f"{OPTION}( {OPTION})*", "--exclude=node7")] | None = Field(
        None, description="SLURM: further options of sbatch for these jobs"
    )

    @property
    def job_device(self) -> str:
        """What jobs are told: a GPU that they request is never replaced by the CPU."""
        return "cuda" if self.device == "auto" and self.gpus_per_job else self.device

    @model_validator(mode="after")
    def _model_of_a_gpu(self) -> "Inference":
        if self.gpu_model and not self.gpus_per_job:
            raise ValueError("gpu_model names a GPU, but no job requests one; set gpus_per_job: 1")
        return self


class Margins(Parameters):
    """By how much a pruned model may be worse than the unpruned one and still be called no worse.

    A judgement about the model's use, to be made before the results are seen.
    """

    accuracy: float = Field(
        0.02, gt=0, lt=1, description="by how much accuracy may be lower, 0.02 for two points"
    )
    ece: float = Field(0.02, gt=0, lt=1, description="by how much debiased ECE may be higher")


class Expected(Parameters):
    """A published value of an unpruned model, which the report sets beside the measured one."""

    model: str = Field(description="name of one of the models")
    dataset: str = Field(description="name of one of the data sets")
    subset: str = Field("all", description="part of the data set")
    metric: str = Field(description="key of the metric, as in metrics.csv")
    value: float = Field(ge=-1e9, le=1e9, description="the published value")
    tolerance: float = Field(
        ge=0, le=1e9, description="largest difference at which they are said to agree"
    )
    source: str = Field(description="where it is published")


class Outcome(Parameters):
    """A pruned cell by whose answers questions are split into those it answers rightly and wrongly.

    As arXiv 2510.07143 does with images reduced in size, to tell questions that need little of the
    image from those that need more; it keeps those alone that the unpruned model answers rightly,
    here all stay.
    """

    strategy: str = Field(description="the strategy's name in paths, such as pool")
    budget: Annotated[int | str, BeforeValidator(_budget_form)] = Field(
        description="one of the study's budgets"
    )


class Statistics(Parameters):
    """The image-clustered bootstrap, the calibration bins, and the margins of "no worse"."""

    resamples: int = Field(2000, ge=100, le=1_000_000, description="bootstrap resamples of images")
    level: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the resamples and of recalibration folds"
    )
    bins: int = Field(15, ge=2, le=1000, description="equal-width confidence bins of ECE")
    margins: Margins = Field(
        Margins(), description='by how much a pruned model may be worse and still be "no worse"'
    )
    outcome_of: Outcome | None = Field(
        None,
        description="add two subsets: the questions that this cell answers rightly, and wrongly; "
        "chosen by outcome, so that nothing is tested on them",
    )


class Study(Parameters):
    """A study: every model on every data set under every strategy at every budget."""

    title: str = Field(description="first line of the report")
    study: Annotated[str, AfterValidator(_study_name)] = Field(
        "", description="folder below results/ for tables and figures; none for results/ itself"
    )
    models: list[Model] = Field(description="the models that are pruned")
    datasets: list[Dataset] = Field(description="what the models are asked")
    strategies: list[Annotated[str | dict[str, Any], BeforeValidator(_strategy_form)]] = Field(
        description="names, or mappings with `strategy:` and its parameters; a list is a sweep",
    )
    budgets: Annotated[
        list[Annotated[int | str, BeforeValidator(_budget_form)]], WrapValidator(_budgets_form)
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
            swept = [key for key in PRECISION if known and isinstance(entry.get(key), list)]
            if not swept:
                models.append(entry)
                continue
            variants = [
                dict(zip(swept, values, strict=True))
                for values in itertools.product(*(entry[key] for key in swept))
            ]
            own = [_variant(entry | values, swept) for values in variants]
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


def _variant(entry: dict[str, Any], swept: list[str]) -> dict[str, Any]:
    """Name a model by its precision; one that is not quantized has no groups."""
    parts = [str(entry[key]) for key in swept if entry[key] != PLAIN]
    named = entry | {"name": "-".join([entry["name"], *parts])}
    if "quantization" in swept and entry["quantization"] != "int4":
        named.pop("group_size", None)
    return named


def tower_name(model: str) -> str:
    """Return the name under which a model's text tower stands among the models in results/."""
    return f"{model}-text-tower"


def _further(names: list[str], known: list[str]) -> list[str]:
    """List names once each that are not known."""
    return [name for name in dict.fromkeys(names) if name not in known]


def params_of(folder: str, name: str) -> type[Parameters]:
    """Return the class of a plugin's settings; a model family may have none of its own."""
    plugin = plugins.load(folder, name)
    return getattr(plugin, "Params", Parameters) if folder == "models" else plugin.Params


def _most_tokens(family: str, settings: Parameters) -> int | None:
    """Return the most visual tokens of an image, if a model family's images differ in them."""
    most = getattr(plugins.load("models", family), "most_tokens", None)
    return most(settings) if most else None


def plugin_settings(folder: str, key: str, name: Any, settings: Mapping[str, Any]) -> Parameters:
    """Check and return a plugin's settings.

    Raises:
        ValueError: what is wrong with them; pydantic adds the key.
    """
    if not isinstance(name, str):
        raise ValueError(f"`{key}:` must be one of {', '.join(plugins.names(folder))}")  # noqa: TRY004
    try:
        kind = params_of(folder, name)
    except PrunecalError as error:
        raise ValueError(str(error)) from error
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        raise ValueError(f"{name}: {sentence(error, kind)}") from error


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
