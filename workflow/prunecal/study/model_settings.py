"""The block `models:` of config.yaml.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from prunecal.core import plugins
from prunecal.core.errors import nearest
from prunecal.core.parameters import Commit, Parameters
from prunecal.storage.schemas import MOST_TOKENS
from prunecal.study.fields import Name, home_known, known_plugin, params_of, plugin_settings
from prunecal.study.prompts import TEMPLATES

PRECISION = ("dtype", "quantization")  # keys of a model of which a list makes several models
PLAIN = "none"  # not quantized


def _known_template(name: str) -> str:
    if name not in TEMPLATES:
        raise ValueError(
            f"{name!r} is unknown{nearest(name, list(TEMPLATES))}; known are {', '.join(TEMPLATES)}"
        )
    return name


class TextTower(Parameters):
    """The text half of a CLIP, for strategies that compare patches with the question's text."""

    repo: str | None = Field(None, description="source: a repository on the Hugging Face Hub")
    revision: Commit | None = Field(None, description="commit of that repository")
    path: Annotated[str, AfterValidator(home_known)] | None = Field(
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
    family: Annotated[str, known_plugin("models")] = Field(
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
    path: Annotated[str, AfterValidator(home_known)] | None = Field(
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


def _most_tokens(family: str, settings: Parameters) -> int | None:
    """Return the most visual tokens of an image, if a model family's images differ in them."""
    most = getattr(plugins.load("models", family), "most_tokens", None)
    return most(settings) if most else None


def variant(entry: dict[str, Any], swept: list[str]) -> dict[str, Any]:
    """Name a model by its precision; one that is not quantized has no groups."""
    parts = [str(entry[key]) for key in swept if entry[key] != PLAIN]
    named = entry | {"name": "-".join([entry["name"], *parts])}
    if "quantization" in swept and entry["quantization"] != "int4":
        named.pop("group_size", None)
    return named


def tower_name(model: str) -> str:
    """Return the name under which a model's text tower stands among the models in results/."""
    return f"{model}-text-tower"
