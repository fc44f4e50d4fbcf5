"""Count how often claims get a verdict in simulated studies in which nothing differs.

    python -m prunecal.benchmark.claims --images 40 60 200 --studies 4000

A study has the unpruned model and six strategies at three budgets. All questions about an image
are answered rightly with one chance, which differs between images and, less, between cells; all
cells have the same accuracy in the mean, so every verdict is false. Prints the table of
docs/add-a-claim.md: per cent of studies, one value for each number of images.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from prunecal.core import cli
from prunecal.statistics.bootstrap import image_weights
from prunecal.statistics.claim_grammar import Claim
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.scores import REFERENCE, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RESAMPLES, PER_IMAGE, BUDGETS = 1000, 8, (40, 20, 10)
ALIKE = 20  # studies that share their resamples, which take longer to draw than a study
MEAN, OF_IMAGES, OF_CELLS = 1.0, 0.6, 0.35  # of the chance's normal quantile: mean, deviations
SEED = 1  # of the numbers on the page
STRATEGIES: list[tuple[str, dict[str, float]]] = [
    *(("scope", {"alpha": alpha, "gap_power": 1}) for alpha in (0, 0.5, 1)),
    *((family, {}) for family in ("saliency", "fastv", "dart")),
]
PRUNED, SCOPE = {"family": {"not": REFERENCE}}, {"family": "scope", "gap_power": 1}
OF_FULL: dict[str, Any] = {"difference": "accuracy", "to": {"family": REFERENCE}}
SLOPE: dict[str, Any] = {"slope": "accuracy", "along": "alpha", "of": SCOPE}
RANGE: dict[str, Any] = {"range": "accuracy", "along": "alpha", "of": SCOPE}
CONDITIONS = {
    "difference, one cell": OF_FULL | {"of": {"family": "saliency", "budget": 10}},
    "difference, every cell": OF_FULL | {"of": PRUNED},
    "difference, some cell": OF_FULL | {"of": PRUNED, "for": "some"},
    "slope, one budget": SLOPE | {"of": SCOPE | {"budget": 10}},
    "slope, some of three budgets": SLOPE | {"for": "some"},
    "range above 0, one budget": RANGE | {"of": SCOPE | {"budget": 10}},
    "range above 0, some of three budgets": RANGE | {"for": "some"},
    "spread": {"spread": "accuracy", "of": PRUNED},
}


class Simulated(Scores):
    """The scores of a simulated study, without a file.

    Args:
        accuracy: the value, then the draws of each cell, float64 [cells, 1 + R].
        images: number of images.
    """

    def __init__(self, accuracy: NDArray, images: int) -> None:
        self.path = "simulated"
        self.facts = {"model": "simulated", "dataset": "simulated", "metrics": ["accuracy"]}
        self.cells = _cells()
        self.subsets = [{"name": "all", "n": images * PER_IMAGE, "n_images": images}]
        self._tables = {"accuracy": accuracy}

    def value(self, metric: str) -> NDArray:
        """Return a metric, float64 [cells, 1]."""
        return self._tables[metric][:, :1]

    def draws(self, metric: str) -> NDArray:
        """Return a metric on each resample, float64 [cells, 1, R]."""
        return self._tables[metric][:, None, 1:]


def _cells() -> list[dict[str, Any]]:
    """Return the cells of a study, the unpruned model first."""
    cells: list[dict[str, Any]] = [
        {"strategy": REFERENCE, "family": REFERENCE, "parameters": {}, "budget": 100}
    ]
    for number, (family, parameters) in enumerate(STRATEGIES):
        cell = {"strategy": f"{family}-{number}", "family": family, "parameters": parameters}
        cells += [cell | {"budget": budget} for budget in BUDGETS]
    return cells


def studies(images: int, count: int) -> Iterator[Simulated]:
    """Yield simulated studies."""
    rng = np.random.default_rng([SEED, images, 5])
    asked, cells = np.full(images, PER_IMAGE), len(_cells())
    for number in range(count):
        if number % ALIKE == 0:
            drawn = image_weights(images, RESAMPLES, 100_000 * SEED + number)
            weights = np.hstack([np.ones((images, 1)), drawn])
        of_images = OF_IMAGES * rng.normal(size=images)
        of_cells = OF_CELLS * rng.normal(size=(cells, images))
        right = rng.binomial(asked, ndtr(MEAN + of_images + of_cells))
        yield Simulated((right @ weights) / (asked @ weights), images)


def verdicts(images: int, count: int) -> Counter[tuple[str, str]]:
    """Return in how many studies each condition has each verdict."""
    claims = [
        Claim(id=name, statement=name, conditions=[{"expect": "above 0", **condition}])
        for name, condition in CONDITIONS.items()
    ]
    counts: Counter[tuple[str, str]] = Counter()
    for study in studies(images, count):
        counts.update((claim.id, evaluate(claim, [study])["verdict"]) for claim in claims)
    return counts


def table(images: list[int], count: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown: per cent of studies by condition and verdict."""
    yield from ("| condition | supported | contradicted |", "|---|---|---|")
    counts = [verdicts(number, count) for number in images]
    for name in CONDITIONS:
        columns = (
            ", ".join(f"{_per_cent(one[name, verdict], count):.1f}" for one in counts)
            for verdict in ("supported", "contradicted")
        )
        yield f"| {name} | {' | '.join(columns)} |"


def _per_cent(part: int, whole: int) -> float:
    """Return a share in per cent, rounded to tenths, halves up."""
    return math.floor(1000 * part / whole + 0.5) / 10


def main(arguments: argparse.Namespace) -> None:
    """Print the table."""
    for line in table(arguments.images, arguments.studies):
        print(line)  # noqa: T201  the output is what was asked for


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[40, 60, 200])
    parser.add_argument("--studies", type=int, default=4000, help="of each number of images")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
