"""The blocks `datasets:` and `imported:` of config.yaml.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

from prunecal.core import plugins
from prunecal.core.errors import brief
from prunecal.core.parameters import Parameters
from prunecal.storage.schemas import MOST_TOKENS
from prunecal.study.budgets import ALL, Budget, share, share_text
from prunecal.study.fields import Name, budget_form, home_known, known_plugin, plugin_settings
from prunecal.study.short_answers import FORM, SUFFIX, has_short_answers


def _imported_budget(budget: Any) -> Any:
    if budget == ALL:
        return budget
    try:
        budget = budget_form(budget)
    except ValueError as error:
        raise ValueError(f"{error}, nor {ALL!r}") from error
    fits = 1 <= budget <= MOST_TOKENS if isinstance(budget, int) else 0 < share(budget) <= 1
    if not fits:
        raise ValueError(
            f"{brief(budget)} is neither between 1 and {MOST_TOKENS} tokens nor a share above 0% "
            "and up to 100%"
        )
    return budget if isinstance(budget, int) else share_text(budget)


def _in_legends(name: str) -> str:
    if not name.strip():
        raise ValueError(f"{brief(name)} names nothing; give some text or remove it")
    if name.startswith("_"):
        raise ValueError(
            f"{brief(name)} begins with an underscore, by which legends of figures leave a name "
            "out; begin with another character"
        )
    return name


class Dataset(BaseModel):
    """A data set: `loader:` is a file of workflow/prunecal/datasets, the rest are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name = Field(description="names the data set in paths, tables and figures")
    loader: Annotated[str, known_plugin("datasets")] = Field(
        description="code that reads it: a file of workflow/prunecal/datasets"
    )

    @model_validator(mode="after")
    def _settings_fit_loader(self) -> "Dataset":
        settings = self.model_extra or {}
        plugin_settings("datasets", "loader", self.loader, settings)
        if self.is_short != has_short_answers(self.name):
            raise ValueError(
                f"the names of data sets of short answers, and no others, end in {SUFFIX}, because "
                f"their confidence is of another kind: name it {self.name.removesuffix(SUFFIX)}"
                f"{SUFFIX} and set `form: {FORM}`, or neither"
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
    dataset: Name = Field(
        description="the data set; of `datasets:` or only in such files; ends in -short-answers if "
        "its answers are no options"
    )
    strategy: Name = Field("full", description="names the strategy in paths and tables")
    family: (
        Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_in_legends)] | None
    ) = Field(None, description="strategy family; `strategy:` if not given")
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
    file: Annotated[str, AfterValidator(home_known)] = Field(
        description="parquet, JSON, CSV or TSV; of a file of several cells the rows of this one"
    )
    columns: dict[str, str] = Field(
        {}, description="the file's own names of columns, by the names in docs/import-answers.md"
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
                    f"the names of models whose confidence is {kind}, and no others, end in "
                    f"-{kind}: name it {self.model.removesuffix(f'-{kind}')}-{kind} and set "
                    f"`confidence: {kind}`, or neither"
                )
        return self

    @model_validator(mode="after")
    def _tokens_fit(self) -> "Imported":
        for name in ("budget", "tokens_per_layer"):
            tokens, most = getattr(self, name), self.visual_tokens
            if isinstance(tokens, int | float) and most is not None and tokens > most:
                raise ValueError(
                    f"{name} = {tokens:g} is more than the {most} visual_tokens of an image; "
                    "correct one"
                )
        return self

    @property
    def task(self) -> tuple[str, str]:
        """The names of the model and the data set."""
        return self.model, self.dataset
