"""Claims are data: a YAML file of statements and of the conditions that make them true.

A claim has `id`, `statement`, `source` (where it comes from), `dataset` (patterns such as "*pope",
by default all), `subset` (by default "all") and `conditions`, all of which must hold on every model
and data set that it names.
A condition measures one of five things over cells that a selector names:

- `difference: METRIC`, `of: SELECTOR`, `to: SELECTOR`: metric(of) - metric(to) for each cell of
  `of`, the cell of `to` being the one that agrees with it in `match` (by default [budget]; the
  unpruned model, family full, matches every budget).
- `slope: METRIC`, `of: SELECTOR`, `along: PARAMETER`: per budget, the least-squares slope of the
  metric over the parameter.
- `range: METRIC`, `of: SELECTOR`, `along: PARAMETER`: per budget, the metric's largest less its
  smallest value over the parameter.
- `spread: METRIC`, `of: SELECTOR`: the metric's variance between strategies less that between
  budgets, both freed of noise.
- `correlation: METRIC`, `of: SELECTOR`, `near: METRIC`, `far: METRIC`: absolute rank correlation
  over cells with `near` less that with `far`, both corrected for attenuation by noise.

A selector is a mapping of `strategy`, `family`, `budget` or a strategy's parameter to a value, a
list of values, or `{not: value}`.

`expect` is "below X", "above X" or "within X" (between -X and X). A case is *supported* where its
whole interval is on that side, *contradicted* where its whole interval is on the other, else
*inconclusive*. Intervals have the study's level, 0.95 unless it says otherwise. Those of
differences, slopes and ranges are Student's: the value plus and minus t s sqrt(n / (n - 1)), with s
the standard deviation over resamples of n images and t the quantile with n - 1 degrees of freedom;
those of spreads and correlations reach between quantiles of the resamples, at the level that makes
up for few images in the same way (Hesterberg, The American Statistician 69, 2015). "within" is
supported by the interval of level 2 * 0.95 - 1 = 0.90, which makes it two one-sided tests at 5 %
(Schuirmann 1987). `for: every` (the default) wants it of every case, `for: some` of at least one.
A case that decides alone is judged at the level 1 - (1 - level) / m, m being all cases of the claim
on all models and data sets, so that testing many cases proves nothing by chance. A claim is
contradicted if one of its conditions is; else not tested if one is not; else supported if all are.
*Not tested* is what the study has no cells for, or too few images, or where the unpruned model's
accuracy is not above chance and above the best constant answer. A case of a cell that has stopped
answering with an option is *inconclusive*.
"""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.core.parameters import Parameters, sentence
from prunecal.core.yaml_keys import refuse_repeated_keys
from prunecal.sources.safe_paths import check_file
from prunecal.statistics import contrasts
from prunecal.statistics.contrasts import Contrast
from prunecal.statistics.selectors import Measured

Verdict = Literal["supported", "contradicted", "inconclusive", "not tested"]


class Expectation(NamedTuple):
    """An interval's side of a limit."""

    side: str
    limit: float

    def judge(self, low: float, high: float) -> Verdict:
        """Return what an interval says of the expectation."""
        if not low <= high:  # NaN: the metric is undefined here
            return "not tested"
        limit = self.limit
        inside, outside = {
            "below": (high < limit, low > limit),
            "above": (low > limit, high < limit),
            "within": (-limit < low and high < limit, low > limit or high < -limit),
        }[self.side]
        return "supported" if inside else "contradicted" if outside else "inconclusive"

    def test(self, case: Contrast, level: float, cases: int = 1) -> Verdict:
        """Return the verdict on one case, alone or at the strict level of one among `cases`."""
        verdict = self.judge(*case.interval(level, cases))
        if case.doubt and verdict != "not tested":
            return "inconclusive"
        if self.side == "within" and verdict == "inconclusive":
            narrow = self.judge(*case.interval(2 * level - 1, cases))
            return "supported" if narrow == "supported" else verdict
        return verdict


class Condition(Parameters):
    """What all kinds of conditions have."""

    of: dict[str, Any]
    expect: str
    quantifier: Literal["every", "some"] = Field("every", alias="for")

    @field_validator("expect")
    @classmethod
    def _a_side_and_a_limit(cls, expect: str) -> str:
        if not re.fullmatch(r"(below|above|within) -?\d+(\.\d+)?", expect):
            raise ValueError(
                f"{brief(expect)} does not fit; give 'below', 'above' or 'within' and a number, "
                "such as 'below 0'"
            )
        return expect

    @field_validator("of", "to", check_fields=False)
    @classmethod
    def _negations_are_complete(cls, selector: dict[str, Any]) -> dict[str, Any]:
        for key, value in selector.items():
            if isinstance(value, dict) and set(value) != {"not"}:
                raise ValueError(f"{cut(str(key))}: a mapping can only be {{not: value}}")
        return selector

    @property
    def expectation(self) -> Expectation:
        """The side and limit of `expect`."""
        side, limit = self.expect.split()
        return Expectation(side, float(limit))

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return the cases of this condition in a study."""
        raise NotImplementedError


class Difference(Condition):
    """Difference of a metric between cells."""

    difference: str
    to: dict[str, Any]
    match: list[str] = ["budget"]

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return a case per cell of `of`."""
        chosen = self.of, self.to, self.match
        return list(contrasts.differences(measured, self.difference, *chosen))


class Slope(Condition):
    """Slope of a metric over a parameter."""

    slope: str
    along: str

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return a case per budget."""
        return list(contrasts.trends(measured, self.slope, self.of, self.along))


class Range(Condition):
    """Largest less smallest value of a metric over a parameter."""

    range: str
    along: str

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return a case per budget."""
        return list(contrasts.ranges(measured, self.range, self.of, self.along))


class Spread(Condition):
    """Spread of a metric between strategies against that between budgets."""

    spread: str

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return one case."""
        return list(contrasts.spreads(measured, self.spread, self.of))


class Correlation(Condition):
    """Rank correlation of a metric with one metric against that with another."""

    correlation: str
    near: str
    far: str

    def measure(self, measured: Measured) -> list[Contrast]:
        """Return one case."""
        pair = self.near, self.far
        return list(contrasts.correlations(measured, self.correlation, self.of, *pair))


KINDS: dict[str, type[Condition]] = {
    "difference": Difference,
    "slope": Slope,
    "range": Range,
    "spread": Spread,
    "correlation": Correlation,
}


class Claim(Parameters):
    """A statement and the conditions that make it true."""

    id: str
    statement: str
    source: str = ""
    dataset: list[str] = ["*"]
    subset: str = "all"
    conditions: list[Any] = Field(min_length=1)

    @field_validator("conditions")
    @classmethod
    def _of_a_known_kind(cls, conditions: list[Any]) -> list[Condition]:
        found = []
        for condition in conditions:
            kinds = [kind for kind in KINDS if isinstance(condition, dict) and kind in condition]
            if len(kinds) != 1:
                raise ValueError(f"a condition has exactly one of {', '.join(KINDS)}")
            kind = KINDS[kinds[0]]
            try:
                found.append(kind.model_validate(condition))
            except ValidationError as error:
                raise ValueError(sentence(error, kind)) from error
        return found


def read_claims(path: Path) -> list[Claim]:
    """Read a file of claims.

    Raises:
        PrunecalError: it cannot be read, an entry is malformed or has a key twice, or two have
            one id.
    """
    check_file(path, "give a file of claims")
    refuse_repeated_keys(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (
        *(OSError, yaml.YAMLError, RecursionError),
        *(ValueError, LookupError, TypeError, AttributeError),  # from tags that do not fit
    ) as error:
        raise PrunecalError(f"{path} cannot be read as YAML ({error}); correct it") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PrunecalError(f"{path} must be a list of claims, each a mapping; correct it")
    claims = []
    for number, entry in enumerate(entries, 1):
        name = cut(str(entry.get("id", f"number {number}")))
        try:
            claims.append(Claim.model_validate(entry))
        except ValidationError as error:
            raise PrunecalError(f"{path}: claim {name}: {sentence(error, Claim)}") from error
        if claims[-1].id in [claim.id for claim in claims[:-1]]:
            raise PrunecalError(f"{path}: claim {name} is defined twice; rename one")
    return claims
