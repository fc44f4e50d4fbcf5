"""The JSON schema of a study's settings, by which editors check and complete config.yaml.

python -m prunecal.study.schema rewrites it after a change of the settings.
"""

import argparse
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prunecal.core import cli, plugins
from prunecal.study.budgets import ALL
from prunecal.study.data_settings import Dataset
from prunecal.study.fields import params_of
from prunecal.study.model_settings import PRECISION, Model
from prunecal.study.prompts import TEMPLATES
from prunecal.study.schedules import MATCH
from prunecal.study.settings import MatchedBudgets, Study

FILE = Path(__file__).with_name("config.schema.json")


def json_schema() -> dict[str, Any]:
    """Return the schema of a study, the settings of all plugins included."""
    schema = Study.model_json_schema()
    blocks = schema["$defs"]
    names = {"name": blocks["Dataset"]["properties"]["name"]}
    blocks["Dataset"] = {
        "description": inspect.getdoc(Dataset),
        "oneOf": [_plugin("datasets", "loader", name, names) for name in plugins.names("datasets")],
    }
    strategies = plugins.names("strategies")
    schema["properties"]["strategies"]["items"] = {
        "anyOf": [
            {"enum": strategies, "description": "a strategy with its default settings"},
            *(_plugin("strategies", "strategy", name, sweep=True) for name in strategies),
        ]
    }
    budget = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"}
    tokens = {"type": "integer", "minimum": 1}
    budgets = schema["properties"]["budgets"]
    listed = {"type": budgets.pop("type"), "items": budgets.pop("items")}
    listed["items"]["anyOf"] = [tokens, budget]
    matched = MatchedBudgets.model_json_schema()
    matched["properties"]["tokens"] |= listed
    budgets["anyOf"] = [listed, matched]
    blocks["Imported"]["properties"]["budget"]["anyOf"] = [tokens, budget, {"const": ALL}]
    model = blocks["Model"]["properties"]
    for key in PRECISION:
        one = {part: model[key].pop(part) for part in ("enum", "type")}
        model[key]["anyOf"] = [one, {"type": "array", "minItems": 1, "items": one}]
    model["template"]["enum"] = list(TEMPLATES)
    model["train"] = {
        "description": model["train"]["description"],
        "oneOf": [_plugin("recipes", "recipe", name) for name in plugins.names("recipes")],
    }
    families = plugins.names("models")
    blocks["Model"] = {
        "description": inspect.getdoc(Model),
        "oneOf": [
            _plugin("models", "family", name, model, required=("name",)) for name in families
        ],
    }
    lists = ("models", "datasets", "strategies", "budgets")
    filled = {"minItems": 1, "description": "not empty, unless all cells are imported"}
    schema["anyOf"] = [
        {"properties": dict.fromkeys(lists, filled)},
        {"properties": {"imported": filled}, "required": ["imported"]},
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _plugin(
    folder: str,
    key: str,
    name: str,
    more: dict[str, Any] | None = None,
    *,
    sweep: bool = False,
    required: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Return the schema of a mapping whose `key` names a plugin and that holds its settings."""
    params = params_of(folder, name)
    settings = params.model_json_schema().get("properties", {})
    if folder == "datasets":
        settings = {setting: _given(value) for setting, value in settings.items()}
    if sweep:
        if plugins.load(folder, name).PRUNES == "inside_llm":
            settings[MATCH] = MatchedBudgets.model_json_schema()["properties"][MATCH]
        settings = {setting: _swept(value) for setting, value in settings.items()}
    head = {key: {"const": name, "description": f"a file of workflow/prunecal/{folder}"}}
    return {
        "type": "object",
        "description": inspect.getdoc(params),
        "properties": {**(more or {}), **head, **settings},
        "required": [*(more or {} if required is None else required), key],
        "additionalProperties": False,
    }


def _given(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting that, where it stands, has a value."""
    kinds = [kind for kind in value.get("anyOf", []) if kind != {"type": "null"}]
    return {**value, "anyOf": kinds} if kinds else value


def _swept(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one value or a list of them."""
    about: dict[str, Any] = {
        key: value[key] for key in ("title", "description", "default") if key in value
    }
    one = {key: rule for key, rule in value.items() if key not in about}
    return {**about, "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def main(arguments: argparse.Namespace) -> None:
    """Write the schema to its file in the package."""
    del arguments
    FILE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    cli.log.info("wrote %s", FILE)


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__).parse_args())
