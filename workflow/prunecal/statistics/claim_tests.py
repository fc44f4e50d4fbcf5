"""Test a study against claims, which are data: a YAML file of statements and their conditions.

A claim has `id`, `statement`, `dataset` (patterns such as "*pope", by default all), `subset` (by
default "all") and `conditions`, all of which must hold on every model and data set that it names.
A condition measures one of four things over cells that a selector names:

- `difference: METRIC`, `of: SELECTOR`, `to: SELECTOR`: metric(of) - metric(to) for each cell of
  `of`, the cell of `to` being the one that agrees with it in `match` (by default [budget]; the
  unpruned model, family full, matches every budget).
- `slope: METRIC`, `of: SELECTOR`, `along: PARAMETER`: per budget, the least-squares slope of the
  metric over the parameter.
- `spread: METRIC`, `of: SELECTOR`: the metric's standard deviation between strategies (means over
  budgets) less that between budgets (means over strategies).
- `correlation: METRIC`, `of: SELECTOR`, `near: METRIC`, `far: METRIC`: absolute rank correlation
  over cells with `near` less that with `far`.

A selector is a mapping of `strategy`, `family`, `budget` or a strategy's parameter to a value, a
list of values, or `{not: value}`.

`expect` is "below X", "above X" or "within X" (between -X and X), and is *supported* where the
whole interval is on that side, *contradicted* where the whole interval is on the other, else
*inconclusive*. `for: every` (the default) wants it of every case, `for: some` of at least one; one
case among m that decides alone is judged at the level 1 - (1 - level) / m, so that testing many
cases proves nothing by chance. What the study has no cells for is *not tested*. A claim is
contradicted if one of its conditions is; else not tested if one is not; else supported if all are.
"""

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

from prunecal.core.errors import PrunecalError, cut
from prunecal.core.parameters import Parameters, sentence
from prunecal.statistics import contrasts
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.contrasts import Contrast, Measured
from prunecal.statistics.scores import Scores

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


class Condition(Parameters):
    """What all four kinds of conditions have."""

    of: dict[str, Any]
    expect: str = Field(pattern=r"^(below|above|within) -?\d+(\.\d+)?$")
    quantifier: Literal["every", "some"] = Field("every", alias="for")

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


KINDS = {"difference": Difference, "slope": Slope, "spread": Spread, "correlation": Correlation}


class Claim(Parameters):
    """A statement and the conditions that make it true."""

    id: str
    statement: str
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
        PrunecalError: it cannot be read, an entry is malformed, or two have one id.
    """
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
            raise PrunecalError(f"{path}: claim {name} stands there twice; rename one")
    return claims


def evaluate(claim: Claim, studied: list[Scores], level: float = 0.95) -> dict[str, Any]:
    """Return a claim's id, statement, verdict and evidence.

    Raises:
        PrunecalError: the claim names an unknown metric or does not say which cells to compare.
    """
    verdicts, words, numbers = [], [], []
    for scores in studied:
        subset = scores.subset(claim.subset)
        named = any(fnmatchcase(scores.facts["dataset"], pattern) for pattern in claim.dataset)
        if not named or subset is None:
            continue
        where = {key: scores.facts[key] for key in ("model", "dataset")} | {"subset": claim.subset}
        for condition in claim.conditions:
            try:
                cases = condition.measure(Measured(scores, subset))
            except PrunecalError as error:
                raise PrunecalError(f"claim {claim.id}: {error}") from error
            verdict, judged = _judge(condition, cases, level)
            verdicts.append(verdict)
            numbers += [where | case for case in judged]
            place = f"{scores.facts['dataset']}, {scores.facts['model']}"
            asked = f"expected {condition.expect} in {condition.quantifier} case: {verdict}"
            words.append(f"{place}: " + ("; ".join(_words(case) for case in judged) or "no cells"))
            words[-1] += f" ({asked})"
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": _all(verdicts),
        "evidence": {"words": words, "numbers": numbers},
    }


def _judge(
    condition: Condition, cases: list[Contrast], level: float
) -> tuple[Verdict, list[dict[str, Any]]]:
    """Return a condition's verdict on one data set, and its cases with theirs."""
    expectation, judged, strict = condition.expectation, [], []
    for case in cases:
        low, high = (float(end) for end in interval(case.draws, level))
        narrow = interval(case.draws, 1 - (1 - level) / len(cases))
        verdict = expectation.judge(low, high)
        if verdict == "not tested" or math.isnan(case.value):
            continue
        strict.append(expectation.judge(*map(float, narrow)))
        judged.append(
            {
                "quantity": case.words,
                "value": case.value,
                "ci_low": low,
                "ci_high": high,
                "expect": condition.expect,
                "verdict": verdict,
            }
        )
    plain = [case["verdict"] for case in judged]
    # one case decides alone for "some" and against "every", so it must pass the strict level
    alone, together = (
        ("contradicted", "supported")
        if condition.quantifier == "every"
        else ("supported", "contradicted")
    )
    if not judged:
        return "not tested", judged
    if alone in strict:
        return alone, judged
    return (together if set(plain) == {together} else "inconclusive"), judged


def _all(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict on a conjunction."""
    for decisive in ("contradicted", "not tested", "inconclusive"):
        if decisive in verdicts:
            return decisive
    return "supported" if verdicts else "not tested"


def _words(case: dict[str, Any]) -> str:
    value, low, high = (f"{case[key]:+.4f}" for key in ("value", "ci_low", "ci_high"))
    return f"{case['quantity']}: {value} [{low}, {high}]"
