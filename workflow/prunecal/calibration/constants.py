"""Settings that are part of metrics' names, apart from arrays so that the catalogue stays light."""

from typing import NamedTuple

BIN_COUNTS = (5, 10, 20, 30, 50)  # further numbers of bins in which ECE is reported
COVERAGE, RISK = 0.8, 0.05  # of risk_at_80_coverage and coverage_at_5_risk
LEVEL = 0.05  # of each family of tests: the error rate that is controlled


class Readout(NamedTuple):
    """Another way to read confidence than the softmax over a question's own options.

    Attributes:
        label: what figures and pages add to a metric's label.
        confidence: what confidence is.
        own_prediction: whether its prediction can be another than that of the record.
        source: who reads it so.
    """

    label: str
    confidence: str
    own_prediction: bool = True
    source: str = ""


READOUTS = {
    "vocabulary": Readout(
        "over the vocabulary",
        "the probability of the prediction among all words",
        own_prediction=False,
    ),
    "spellings": Readout(
        "over the vocabulary, spellings summed",
        "the probability among all words of the prediction in any spelling",
    ),
    "letters": Readout(
        "over A to D",
        "the softmax over the letters A to D, also where a question has fewer or more options",
        source="version 1 of the paper, arXiv 2604.12035v1",
    ),
}
READ = ("accuracy", "overconfidence", "ece", "ece_debiased", "brier", "aurc")  # of each readout
