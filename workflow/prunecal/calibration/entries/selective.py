"""Selective prediction: does confidence rank right answers above errors?"""

from prunecal.calibration.metric import Metric

GEIFMAN = "Geifman et al., arXiv 1805.08206"

ENTRIES = (
    Metric(
        "auroc",
        "AUROC",
        "Chance that a right answer is more confident than a wrong one, ties as one half.",
        "P(c_right > c_wrong) + P(c_right = c_wrong) / 2",
        higher_is_better=True,
        function="auroc",
    ),
    Metric(
        "aurc",
        "AURC",
        "Area under the risk-coverage curve: the error rate of the k most confident answers, "
        "averaged over k; ties in expectation over their orders.",
        "Σ_k risk(k) / n, risk(k) = errors among the k most confident / k",
        higher_is_better=False,
        source=GEIFMAN,
        function="aurc",
    ),
    Metric(
        "e_aurc",
        "E-AURC",
        "Excess AURC: AURC minus that of a perfect ranking at the same accuracy.",
        higher_is_better=False,
        source=GEIFMAN,
        function="e_aurc",
    ),
    Metric(
        "augrc",
        "AUGRC",
        "Area under the generalised risk-coverage curve: wrong answers among the k most "
        "confident as a share of all answers, averaged over k.",
        "Σ_k (errors among the k most confident) / n²",
        higher_is_better=False,
        source="Traub et al., arXiv 2407.01032",
        function="augrc",
    ),
    Metric(
        "risk_at_80_coverage",
        "Risk at 80 % coverage",
        "Error rate when only the most confident 80 % of the questions are answered.",
        higher_is_better=False,
        function="risk_at_coverage",
    ),
    Metric(
        "coverage_at_5_risk",
        "Coverage at 5 % risk",
        "Largest share of questions, most confident first, that can be answered with an error "
        "rate of at most 5 %.",
        higher_is_better=True,
        function="coverage_at_risk",
    ),
)
