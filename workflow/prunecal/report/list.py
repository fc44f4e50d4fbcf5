"""Print what a study can name: strategies, data set loaders, model families, recipes, metrics."""

import argparse
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType

from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import cli, plugins
from prunecal.strategies._declarations import declarations

HEADINGS = {
    "strategies": "Strategies (`strategies:`)",
    "datasets": "Data set loaders (`datasets: loader:`)",
    "models": "Model families (`models: family:`)",
    "recipes": "Recipes (`models: train: recipe:`)",
}
WIDTH = 100


def lines() -> Iterator[str]:
    """Yield the listing line by line.

    Raises:
        PrunecalError: a plugin of an installed distribution does not follow its protocol.
    """
    for folder, heading in HEADINGS.items():
        yield heading
        for name in plugins.names(folder):
            yield from _plugin(name, plugins.load(folder, name))
        yield ""
    yield "Metrics"
    directions = {True: " (higher is better)", False: " (lower is better)", None: ""}
    for key, metric in CATALOGUE.items():
        unit = f" in {metric.unit}" if metric.unit else ""
        yield f"  {key}: {metric.label}{unit}{directions[metric.higher_is_better]}"
        yield from _indented(metric.definition)


def _plugin(name: str, module: ModuleType) -> Iterator[str]:
    outside = "" if module.__name__.startswith("prunecal.") else f", from {module.__name__}"
    pruning = hasattr(module, "PRUNES") and name != "full"
    prunes = f", prunes {module.PRUNES}" if pruning else ""
    yield f"  {name}: {module.LABEL}{prunes}{outside}"
    yield from _indented(inspect.getdoc(module).partition("\n")[0])
    if pruning:
        yield from _indented(
            "; ".join(f"{key}: {said}" for key, said in declarations(module).items())
        )
    parameters = module.Params.model_fields if hasattr(module, "Params") else {}
    for key, field in parameters.items():
        default = "required" if field.is_required() else f"default {field.get_default()!r}"
        yield from _indented(f"- {key} ({default}): {field.description or ''}".rstrip(": "))


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 8)


def main(arguments: argparse.Namespace) -> None:
    """Print the listing."""
    del arguments
    print("\n".join(lines()))  # noqa: T201  the output is what was asked for


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__).parse_args())
