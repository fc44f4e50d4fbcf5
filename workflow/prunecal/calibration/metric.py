"""What the catalogue says of a metric."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from prunecal.calibration.sample import Sample

GUO = "Guo et al., arXiv 1706.04599"

# Binned and smoothed calibration errors are means of absolute values, so noise adds to them, and a
# resample has noise of its own on top: no percentile interval of theirs covers a small true error.
BIASED: dict[str, Any] = {"interval": None, "test": None}
DEBIASED: dict[str, Any] = {"interval": "debiased", "test": "normal"}
RECALIBRATED: dict[str, Any] = {"interval": "non-negative", "test": "normal"}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        key: what tables and files call it.
        label: what figures and pages call it.
        definition: what it measures, one sentence or two.
        formula: the same in symbols; empty where the sentence says it all. n rows; c confidence,
            y correctness (0 or 1) of a row; p probability of an option; bins b of n_b rows with
            mean confidence c_b and accuracy a_b.
        unit: of its values; empty for shares, counts and scores.
        higher_is_better: None where neither direction is better.
        source: where the definition comes from.
        function: the public function for arrays, in `prunecal.calibration`; empty if there is none.
        interval: how its interval is made of the resamples. "non-negative" is the percentile
            interval cut at 0; "debiased" also begins at 0 where nothing speaks against calibration
            (the test of `statistics.calibrated`); None where no interval covers as it should.
        test: how differences from the unpruned model get their interval; None where they get
            neither interval nor p-value.
        pooled: whether it is of all questions alone, not of subsets.
    """

    key: str
    label: str
    definition: str
    formula: str = ""
    unit: str = ""
    higher_is_better: bool | None = None
    source: str = ""
    function: str = ""
    interval: Literal["percentile", "non-negative", "debiased"] | None = "percentile"
    test: Literal["percentile", "normal"] | None = "percentile"
    pooled: bool = False

    @property
    def label_with_unit(self) -> str:
        """The label, and the unit in brackets if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def axis_label(self) -> str:
        """The label with its unit, and which direction is better."""
        direction = {True: " (higher is better)", False: " (lower is better)", None: ""}
        return self.label_with_unit + direction[self.higher_is_better]

    def compute(self, sample: Sample) -> NDArray | None:
        """Return the metric of a sample, float64 [R]; None where the sample does not have it."""
        return importlib.import_module("prunecal.calibration.metrics").compute(self.key, sample)

    @property
    def public(self) -> Callable[..., float] | None:
        """The public function for arrays; None if there is none."""
        package = importlib.import_module("prunecal.calibration")
        return getattr(package, self.function) if self.function else None
