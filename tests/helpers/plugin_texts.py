"""The settings of every plugin with a text in each that takes one, derived from their classes."""

import itertools

from pydantic import ValidationError

from helpers import synthetic_results
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.study.cells import load_study

PLUGINS = [(folder, name) for folder in plugins.KINDS for name in plugins.names(folder)]
MOST_NEEDED = 3  # settings without which a plugin takes no others


def kind_of(folder, name):
    """Return the class of a plugin's settings."""
    return getattr(plugins.load(folder, name), "Params", Parameters)


def settings_with(folder, name, text):
    """Return the settings of a plugin that take a text, and why each of the others does not."""
    kind = kind_of(folder, name)
    some = (
        dict.fromkeys(fields, text)
        for size in range(MOST_NEEDED + 1)
        for fields in itertools.combinations(kind.model_fields, size)
    )
    given, why = next(one for one in some if _fits(kind, one)), {}
    for field in kind.model_fields:
        if field not in given:
            why[field] = _refusal(folder, name, given | {field: text})
            if why[field] is None:
                given[field] = text
    return given, {field: reason for field, reason in why.items() if reason is not None}


def _fits(kind, given):
    try:
        kind.model_validate(given)
    except ValidationError:
        return False
    return True


def _refusal(folder, name, given):
    """Return the sentence that refuses a study with these settings, None if it is accepted."""
    settings = synthetic_results.study()
    (model,) = settings["models"]
    if folder == "datasets":
        settings["datasets"].append({"name": "more", "loader": name} | given)
    elif folder == "models":
        more = model | {"name": "more", "family": name} | given
        if hasattr(plugins.load("models", name), "most_tokens"):
            del more["visual_tokens"]
        settings["models"].append(more)
    elif folder == "recipes":
        more = {key: value for key, value in model.items() if key != "path"}
        settings["models"].append(more | {"name": "more", "train": {"recipe": name} | given})
    else:
        settings["strategies"] = ["full", {"strategy": name} | given]
    try:
        load_study(settings)
    except PrunecalError as error:
        return str(error)
    return None
