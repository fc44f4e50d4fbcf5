"""Calibration after recalibration, cross-fitted over images."""

from prunecal.calibration.metric import GUO, RECALIBRATED, Metric

MAPS = {  # words, source
    "isotonic": ("isotonic regression", "Zadrozny and Elkan, KDD 2002"),
    "histogram": ("histogram binning", "Gupta and Ramdas, arXiv 2105.04656"),
}

ENTRIES = (
    Metric(
        "ece_temperature",
        "ECE after temperature scaling",
        "Debiased ECE when the logits of each half of the images are divided by the "
        "temperature fitted on the other half, mean over several splits into halves.",
        higher_is_better=False,
        source=f"{GUO}, section 4.2",
        **RECALIBRATED,
    ),
    Metric(
        "ece_temperature_transfer",
        "ECE at the unpruned model's temperature",
        "As ECE after temperature scaling, but with the temperatures fitted to the unpruned "
        "model: what a recalibrated model has when it is pruned afterwards.",
        higher_is_better=False,
        **RECALIBRATED,
    ),
    Metric(
        "temperature",
        "Fitted temperature",
        "The T by which logits are divided so that the negative log-likelihood is smallest, "
        "geometric mean over halves of the images; above 1 the logits are overconfident. Empty "
        "where a half has no finite optimum.",
        "argmin_T Σ −log softmax(logits / T)[label]",
        source=f"{GUO}, section 4.2",
        function="temperature",
        test=None,
    ),
    Metric(
        "log_temperature",
        "Log of the fitted temperature",
        "Natural logarithm of the fitted temperature, which is what differences are taken of.",
        "log T",
        source=f"{GUO}, section 4.2",
    ),
    *(
        Metric(
            f"ece_{name}",
            f"ECE after {words}",
            f"Debiased ECE when each half of the images gets the {words} fitted on the other half, "
            "mean over several splits. Resamples keep the fits of the sample; in simulations, they "
            "still show how differences vary over studies. Both halves share the bins, in which "
            "errors of their two maps cancel in part: the ECE of one map is a little higher.",
            higher_is_better=False,
            source=source,
            **RECALIBRATED,
        )
        for name, (words, source) in MAPS.items()
    ),
    *(
        Metric(
            f"brier_{name}",
            f"Brier score after {words}",
            f"Brier score when each half of the images gets the {words} fitted on the other half, "
            "mean over several splits; resamples keep the fits of the sample.",
            higher_is_better=False,
            source=source,
        )
        for name, (words, source) in {"temperature": ("temperature scaling", GUO), **MAPS}.items()
    ),
)
