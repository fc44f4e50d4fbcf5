"""Calibration errors: by how much confidence misses accuracy."""

from prunecal.calibration.constants import BIN_COUNTS
from prunecal.calibration.metric import BIASED, DEBIASED, GUO, Metric

ENTRIES = (
    Metric(
        "ece",
        "ECE",
        "Expected calibration error: by how much confidence misses accuracy, averaged over "
        "equal-width bins of confidence.",
        "Σ_b (n_b / n) |a_b − c_b|",
        higher_is_better=False,
        source=f"{GUO}, equation 3",
        function="expected_calibration_error",
        **BIASED,
    ),
    Metric(
        "ece_over",
        "Overconfident part of ECE",
        "The part of ECE from bins in which mean confidence is above accuracy.",
        "Σ_b (n_b / n) max(c_b − a_b, 0)",
        higher_is_better=False,
        **BIASED,
    ),
    Metric(
        "ece_under",
        "Underconfident part of ECE",
        "The part of ECE from bins in which mean confidence is below accuracy.",
        "Σ_b (n_b / n) max(a_b − c_b, 0)",
        higher_is_better=False,
        **BIASED,
    ),
    Metric(
        "ece_debiased",
        "Debiased ECE",
        "ECE less what the sampling noise of each bin's mean gap adds to it in expectation; "
        "it can fall below 0.",
        "Σ_b (n_b / n) (2 g_b − E|N(g_b, s_b²)|), g_b = |a_b − c_b|, s_b the standard error "
        "over images of the bin's mean gap, at least √(a_b (1 − a_b) / (n_b − 1)), and √2 "
        "times that in a resample",
        higher_is_better=False,
        source="Kumar et al., arXiv 1909.10155, section 5, in closed form",
        **DEBIASED,
    ),
    *(
        Metric(
            f"ece_{count}_bins",
            f"ECE in {count} bins",
            f"ECE over {count} equal-width bins.",
            source=f"{GUO}, equation 3",
            **BIASED,
        )
        for count in BIN_COUNTS
    ),
    *(
        Metric(
            f"ece_{count}_bins_debiased",
            f"Debiased ECE in {count} bins",
            f"ECE over {count} equal-width bins, less what noise adds to it; see Debiased ECE.",
            higher_is_better=False,
            **DEBIASED,
        )
        for count in BIN_COUNTS
    ),
    Metric(
        "ece_if_calibrated",
        "ECE of a calibrated model",
        "The ECE that a calibrated model would show on these images by noise alone: its mean, and "
        "the range that holds the given share of replicates. Each replicate gives the residuals "
        "(confidence − correctness) of every image one random sign.",
        "Σ_b |Σ_i ε_i Σ (c − y)| / n, ε_i = ±1 for image i",
        source="Cameron, Gelbach and Miller, Review of Economics and Statistics 90, 2008",
        test=None,
    ),
    Metric(
        "ece_cross_fitted",
        "Cross-fitted ECE",
        "ECE in which the sign of each bin's gap is taken from one half of the images and its "
        "size from the other. In expectation it is no larger than the true ECE, so that the lower "
        "end of its interval is a lower bound of the ECE; it can fall below 0.",
        "Σ_b (sign(g_b1) n_b2 g_b2 + sign(g_b2) n_b1 g_b1) / n, halves 1 and 2, mean over splits",
        interval="non-negative",
        test=None,
    ),
    Metric(
        "ece_yes",
        "ECE where it says yes",
        "ECE over the questions answered with Yes.",
        **BIASED,
    ),
    Metric("ece_no", "ECE where it says no", "ECE over the questions answered with No.", **BIASED),
    Metric(
        "ace",
        "Adaptive ECE",
        "Calibration error in bins that hold equally many questions; tied confidences count "
        "in expectation over their orders.",
        "Σ_b (n_b / n) |a_b − c_b|, n_b equal up to one",
        higher_is_better=False,
        source="Nixon et al., arXiv 1904.01685",
        function="adaptive_calibration_error",
        **BIASED,
    ),
    Metric(
        "ace_debiased",
        "Debiased adaptive ECE",
        "ECE in bins that hold equally many questions, less what noise adds to it; see Debiased "
        "ECE. Equal confidences share a bin, and resamples keep the sample's bins.",
        higher_is_better=False,
        **DEBIASED,
    ),
    Metric(
        "mce",
        "MCE",
        "Maximum calibration error: the largest gap between mean confidence and accuracy of "
        "any bin that holds a question.",
        "max_b |a_b − c_b|",
        higher_is_better=False,
        source=f"{GUO}, equation 5",
        function="maximum_calibration_error",
        **BIASED,
    ),
    Metric(
        "smece",
        "Smooth ECE",
        "Calibration error without bins: residuals are smoothed over confidence by a Gaussian "
        "whose width is the smallest one that is no less than the error it gives.",
        "∫ |Σ_i (c_i − y_i) K_σ(t, c_i)| dt / n",
        higher_is_better=False,
        source="Błasiok and Nakkiran, arXiv 2309.12236, section 4",
        function="smooth_calibration_error",
        interval=None,
        test="normal",
    ),
)
