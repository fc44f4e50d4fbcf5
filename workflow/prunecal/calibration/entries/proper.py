"""Proper scores and their parts."""

from prunecal.calibration.metric import BIASED, Metric

MURPHY = "Murphy, A New Vector Partition of the Probability Score, 1973"
CORP = "Dimitriadis, Gneiting and Jordan, PNAS 118, 2021"
COX = "Cox, Two Further Applications of a Model for Binary Regression, 1958"

ENTRIES = (
    Metric(
        "brier",
        "Brier score",
        "Mean squared difference between confidence and correctness.",
        "Σ (c − y)² / n",
        higher_is_better=False,
        source="Brier, Verification of Forecasts Expressed in Terms of Probability, 1950",
        function="brier_score",
    ),
    Metric(
        "brier_multiclass",
        "Brier score, multiclass",
        "Sum over a question's options of the squared difference between probability and "
        "truth, averaged over questions; in [0, 2].",
        "Σ Σ_k (p_k − [k = label])² / n",
        higher_is_better=False,
        source="Brier, Verification of Forecasts Expressed in Terms of Probability, 1950",
        function="brier_multiclass",
    ),
    Metric(
        "brier_reliability",
        "Brier reliability",
        "The part of the Brier score that miscalibration causes, over the bins of ECE. "
        "Reliability − resolution + uncertainty is the Brier score, up to the spread of "
        "confidence within bins.",
        "Σ_b (n_b / n) (c_b − a_b)²",
        higher_is_better=False,
        source=MURPHY,
        **BIASED,
    ),
    Metric(
        "brier_resolution",
        "Brier resolution",
        "How far the accuracies of the bins lie from the overall accuracy a.",
        "Σ_b (n_b / n) (a_b − a)²",
        higher_is_better=True,
        source=MURPHY,
    ),
    Metric(
        "brier_uncertainty",
        "Brier uncertainty",
        "The variance of correctness, which no confidence can remove.",
        "a (1 − a)",
        source=MURPHY,
    ),
    Metric(
        "brier_miscalibration",
        "Miscalibration",
        "The part of the Brier score that recalibration would remove: squared gaps of the bins of "
        "ECE, from pairs of questions about different images, so that noise adds nothing. Brier "
        "score = miscalibration − discrimination + uncertainty. It can fall below 0.",
        "Σ_b (G_b² − Σ_i G_bi²) / n_b / n, G_bi the sum of c − y of image i in bin b",
        higher_is_better=False,
        source="Ferro and Fricker, 2012, with images in place of rows",
    ),
    Metric(
        "brier_discrimination",
        "Discrimination",
        "How much better confidence is, once recalibrated, than the overall accuracy as the "
        "confidence of every answer.",
        "miscalibration + a (1 − a) − Brier score",
        higher_is_better=True,
        source="Ferro and Fricker, 2012, with images in place of rows",
    ),
    Metric(
        "corp_miscalibration",
        "Miscalibration (isotonic)",
        "The Brier score less that after isotonic regression, cross-fitted over images. The noise "
        "of the fit makes it too small, and is not in the resamples: it has no interval.",
        "S(c) − S(m(c)), S the Brier score, m the isotonic regression of y on c in other images",
        higher_is_better=False,
        source=CORP,
        **BIASED,
    ),
    Metric(
        "corp_discrimination",
        "Discrimination (isotonic)",
        "The uncertainty less the Brier score after isotonic regression, cross-fitted over images.",
        "a (1 − a) − S(m(c))",
        higher_is_better=True,
        source=CORP,
        **BIASED,
    ),
    Metric(
        "cox_slope",
        "Slope of calibration",
        "Slope of a logistic regression of correctness on the logit of confidence; 1 if "
        "calibrated, below 1 where confidences are too extreme.",
        "logit P(y = 1) = intercept + slope · logit c",
        source=COX,
    ),
    Metric(
        "cox_intercept",
        "Intercept of calibration",
        "Intercept of the same logistic regression; 0 if calibrated.",
        source=COX,
    ),
    Metric(
        "nll",
        "NLL",
        "Negative log-likelihood: mean of −log of the probability given to the right option.",
        "Σ −log p_label / n",
        unit="nats",
        higher_is_better=False,
        function="negative_log_likelihood",
    ),
)
