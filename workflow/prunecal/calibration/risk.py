"""Does confidence rank right answers above errors? Selective prediction and AUROC.

Rows of equal confidence are taken in expectation over their orders, so that the order of the rows
in a file never matters.
"""

from numpy.typing import ArrayLike

from prunecal.calibration._checks import checked
from prunecal.calibration.ranked import ranked


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the chance that a right answer is more confident than an error, ties as one half.

    0.5 is chance, 1 is a perfect ranking; NaN where all rows are right or all are wrong.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `_checks.checked`.
    """
    return float(ranked(*checked(confidence, correct)).auroc[0])


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: mean selective risk, 0 is best.

    The mean over k = 1 … n of the error rate among the k most confident rows (Geifman et al.,
    arXiv 1805.08206), ties in expectation over their orders.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `_checks.checked`.
    """
    return float(ranked(*checked(confidence, correct)).aurc[0])


def e_aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the excess AURC: AURC minus that of a perfect ranking at the same accuracy.

    The perfect ranking's AURC is computed for the given n rows, not for n to infinity
    (Geifman et al., arXiv 1805.08206, who name the limit (1 + (1 - r) ln(1 - r) / r) r).

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `_checks.checked`.
    """
    return float(ranked(*checked(confidence, correct)).e_aurc[0])


def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the generalised risk-coverage curve: mean undetected errors.

    The mean over k = 1 … n of (errors among the k most confident rows) / n (Traub et al.,
    arXiv 2407.01032), ties in expectation over their orders; 0 is best.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `_checks.checked`.
    """
    return float(ranked(*checked(confidence, correct)).augrc[0])


def risk_at_coverage(confidence: ArrayLike, correct: ArrayLike, coverage: float = 0.8) -> float:
    """Return the error rate when only the most confident share of the questions is answered.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        coverage: share of rows to answer, in (0, 1]; ceil(coverage * n) rows are answered.

    Raises:
        ValueError: `coverage` is outside (0, 1]; or see `_checks.checked`.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage}: it must lie in (0, 1]")
    return float(ranked(*checked(confidence, correct)).risk_at_coverage(coverage)[0])


def coverage_at_risk(confidence: ArrayLike, correct: ArrayLike, risk: float = 0.05) -> float:
    """Return the largest share of questions that can be answered at no more than this error rate.

    0 where not even the most confident row meets the limit.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        risk: the error rate that is accepted, in [0, 1].

    Raises:
        ValueError: `risk` is outside [0, 1]; or see `_checks.checked`.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk is {risk}: it must lie in [0, 1]")
    return float(ranked(*checked(confidence, correct)).coverage_at_risk(risk)[0])
