"""Kinds of values that several blocks of config.yaml hold: names, paths, budgets, plugins.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import LocalPath, Parameters, sentence
from prunecal.study.budgets import SHARE

# folders of results/ and results/{study}/ that hold other things
RESERVED = ("datasets", "models", "studies", "scores", "figures", "tables", "benchmark", "results")
FILE_SUFFIXES = (".parquet", ".safetensors", ".csv", ".json", ".html")  # of files beside folders
BETWEEN_STUDIES = "-vs-"  # results/studies/{a}-vs-{b}


def path_safe(name: str) -> str:
    """Refuse a name that cannot be that of a folder of results."""
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


def study_name(name: str) -> str:
    """Refuse a name that cannot be that of a study; an empty one is results/ itself."""
    if BETWEEN_STUDIES in name:
        raise ValueError(
            f"{brief(name)} holds {BETWEEN_STUDIES!r}, which stands between the names of two "
            "compared studies; give another name"
        )
    return name and path_safe(name)


LOCAL_PATH = TypeAdapter(LocalPath)


def home_known(path: str) -> str:
    """Refuse a path whose home folder is not known, and keep it as it is written."""
    LOCAL_PATH.validate_python(path)  # kept: the home folder's path is never written
    return path


def budget_form(budget: Any) -> Any:
    """Take a whole number of tokens, or a share of them such as "25%"."""
    if isinstance(budget, str) and re.fullmatch(r"\d{1,9}", budget):
        return int(budget)  # `snakemake --config budgets=[64]` gives text
    if isinstance(budget, str) and SHARE.fullmatch(budget):
        return budget
    if isinstance(budget, int) and not isinstance(budget, bool) and abs(budget) < 10**9:
        return budget
    raise ValueError(f"{brief(budget)} is neither a whole number of tokens nor a share like '25%'")


def known_plugin(folder: str) -> AfterValidator:
    """Return what refuses a name that no plugin of that folder has."""

    def check(name: str) -> str:
        try:
            plugins.module_name(folder, name)
        except PrunecalError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


def params_of(folder: str, name: str) -> type[Parameters]:
    """Return the class of a plugin's settings; a model family may have none of its own."""
    plugin = plugins.load(folder, name)
    return getattr(plugin, "Params", Parameters) if folder == "models" else plugin.Params


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


Name = Annotated[str, AfterValidator(path_safe)]
