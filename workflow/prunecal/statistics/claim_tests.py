"""The verdict on each claim, with its evidence; `claim_grammar` says what a claim can state."""

import math
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import yaml

from prunecal.calibration.constants import READOUTS
from prunecal.core.errors import PrunecalError, cut
from prunecal.statistics.baselines import why_not_tested
from prunecal.statistics.claim_grammar import Claim, Condition, Verdict
from prunecal.statistics.contrasts import Contrast
from prunecal.statistics.scores import Scores
from prunecal.statistics.selectors import Measured, Selector
from prunecal.statistics.subsets import POOLED


def evaluate(claim: Claim, studied: list[Scores], level: float = 0.95) -> dict[str, Any]:
    """Return a claim's id, statement, verdict and evidence: words, numbers, source, readouts.

    The readouts are the verdicts that the claim has where confidence is read otherwise.

    Raises:
        PrunecalError: the claim names an unknown metric or does not say which cells to compare.
    """
    verdict, words, numbers = _judge(claim, studied, level)
    others = {name: _judge(claim, studied, level, name)[0] for name in _read(claim, studied)}
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": verdict,
        "evidence": {
            "words": words,
            "numbers": numbers,
            "source": claim.source,
            "readouts": others,
        },
    }


def _judge(
    claim: Claim, studied: list[Scores], level: float, readout: str = ""
) -> tuple[Verdict, list[str], list[dict[str, Any]]]:
    """Return a claim's verdict, its evidence in words, and its evidence in numbers."""
    tests, words, numbers = [], [], []
    for scores in _named(claim, studied):
        subset = scores.subset(claim.subset)
        if subset is not None:
            fault = why_not_tested(scores, subset, level)
            tests += [
                _Test(Measured(scores, subset, readout), scores, condition, claim, fault)
                for condition in claim.conditions
            ]
    cases = sum(len(test.cases) for test in tests)
    verdicts = [test.verdict(level, cases) for test in tests]
    for test, verdict in zip(tests, verdicts, strict=True):
        numbers += test.numbers(level)
        words.append(test.words(level, verdict))
    return _all(verdicts), words, numbers


def _named(claim: Claim, studied: list[Scores]) -> list[Scores]:
    """Return the scores of the data sets that a claim names."""
    return [
        scores
        for scores in studied
        if any(fnmatchcase(scores.facts["dataset"], pattern) for pattern in claim.dataset)
    ]


def _read(claim: Claim, studied: list[Scores]) -> list[str]:
    """Return the readouts of which a claim's data sets have metrics, which all questions have."""
    if claim.subset != POOLED:
        return []
    known = {name for scores in _named(claim, studied) for name in scores.facts["metrics"]}
    return [name for name in READOUTS if f"ece_{name}" in known]


class _Test:
    """One condition of a claim on one model and data set."""

    def __init__(
        self, measured: Measured, scores: Scores, condition: Condition, claim: Claim, fault: str
    ):  # fmt: skip
        try:
            cases = condition.measure(measured)
        except PrunecalError as error:
            raise PrunecalError(f"claim {claim.id}: {error}") from error
        self.where = scores.task | {"subset": claim.subset}
        self.condition = condition
        self.fault = fault  # why nothing can be said of pruning
        selectors = [getattr(condition, key, None) for key in ("of", "to")]
        empty = [one for one in selectors if one is not None and not measured.select(one)]
        self.nothing = f"no cell is {_shown(empty[0])}" if empty else "no cells to compare"
        self.cases = [] if self.fault else [case for case in cases if _defined(case)]

    def verdict(self, level: float, cases: int) -> Verdict:
        """Return the verdict of the condition; `cases` is the number of all cases of the claim."""
        expectation = self.condition.expectation
        alone: Verdict
        together: Verdict
        # one case decides alone for "some" and against "every", so it must pass the strict level
        if self.condition.quantifier == "every":
            alone, together = "contradicted", "supported"
        else:
            alone, together = "supported", "contradicted"
        if not self.cases:
            return "not tested"
        if any(expectation.test(case, level, cases) == alone for case in self.cases):
            return alone
        plain = {expectation.test(case, level) for case in self.cases}
        return together if plain == {together} else "inconclusive"

    def numbers(self, level: float) -> list[dict[str, Any]]:
        """Return each case with its interval and its own verdict."""
        rows = []
        for case in self.cases:
            low, high = case.interval(level)
            rows.append(
                {
                    **self.where,
                    "quantity": case.words,
                    "value": case.value,
                    "ci_low": low,
                    "ci_high": high,
                    "expect": self.condition.expect,
                    "verdict": self.condition.expectation.test(case, level),
                }
                | ({"doubt": case.doubt} if case.doubt else {})
            )
        return rows

    def words(self, level: float, verdict: Verdict) -> str:
        """Return the cases and the verdict as text."""
        parts = []
        for case in self.cases:
            low, high = case.interval(level)
            doubt = f", {case.doubt}" if case.doubt else ""
            parts.append(f"{case.words}: {case.value:+.4f} [{low:+.4f}, {high:+.4f}]{doubt}")
        if not parts:
            parts = [self.fault or self.nothing]
        expected = (
            f"expected {self.condition.expect} in {self.condition.quantifier} case: {verdict}"
        )
        place = f"{self.where['dataset']}, {self.where['model']}"
        return f"{place}: {'; '.join(parts)} ({expected})"


def _shown(selector: Selector) -> str:
    """Return a selector as a claim may write it: `{family: scope, alpha: 0}`."""
    return cut(yaml.safe_dump(selector, default_flow_style=True, sort_keys=False).strip())


def _defined(case: Contrast) -> bool:
    return math.isfinite(case.value) and bool(np.isfinite(case.draws).any())


def _all(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict on a conjunction."""
    for decisive in ("contradicted", "not tested", "inconclusive"):
        if decisive in verdicts:
            return decisive
    return "supported" if verdicts else "not tested"
