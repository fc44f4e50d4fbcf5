"""The catalogue of metrics: what each is called, what it means, and which function computes it.

Every table, figure and page learns of a metric from here; how each is computed is in
`prunecal.calibration.metrics`, imported when it is first asked for, so that this file stays light.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prunecal.calibration.constants import BIN_COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from prunecal.calibration.sample import Sample


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
            interval cut at 0; None where no interval of it covers as it should.
        test: how differences from the unpruned model get their interval; None where they get
            neither interval nor p-value.
    """

    key: str
    label: str
    definition: str
    formula: str = ""
    unit: str = ""
    higher_is_better: bool | None = None
    source: str = ""
    function: str = ""
    interval: Literal["percentile", "non-negative"] | None = "percentile"
    test: Literal["percentile", "normal"] | None = "percentile"

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


GUO = "Guo et al., arXiv 1706.04599"
GEIFMAN = "Geifman et al., arXiv 1805.08206"
MURPHY = "Murphy, A New Vector Partition of the Probability Score, 1973"

# Binned and smoothed calibration errors are means of absolute values, so noise adds to them, and a
# resample has noise of its own on top: no percentile interval of theirs covers a small true error.
BIASED: dict[str, Any] = {"interval": None, "test": None}
DEBIASED: dict[str, Any] = {"interval": "non-negative", "test": "normal"}

CATALOGUE: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            "accuracy",
            "Accuracy",
            "Share of questions whose prediction, the option with the largest logit, is right.",
            "Σ y / n",
            higher_is_better=True,
        ),
        Metric(
            "mean_confidence",
            "Mean confidence",
            "Mean of the confidence, the probability given to the prediction.",
            "Σ c / n",
        ),
        Metric(
            "overconfidence", "Overconfidence", "Mean confidence minus accuracy.", "Σ (c − y) / n"
        ),
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
        Metric(
            "ece_yes",
            "ECE where it says yes",
            "ECE over the questions answered with Yes.",
            **BIASED,
        ),
        Metric(
            "ece_no", "ECE where it says no", "ECE over the questions answered with No.", **BIASED
        ),
        Metric(
            "ece_temperature",
            "ECE after temperature scaling",
            "Debiased ECE when the logits of each half of the images are divided by the "
            "temperature fitted on the other half, mean over several splits into halves.",
            higher_is_better=False,
            source=f"{GUO}, section 4.2",
            **DEBIASED,
        ),
        Metric(
            "ece_temperature_transfer",
            "ECE at the unpruned model's temperature",
            "As ECE after temperature scaling, but with the temperatures fitted to the unpruned "
            "model: what a recalibrated model has when it is pruned afterwards.",
            higher_is_better=False,
            **DEBIASED,
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
            "nll",
            "NLL",
            "Negative log-likelihood: mean of −log of the probability given to the right option.",
            "Σ −log p_label / n",
            unit="nats",
            higher_is_better=False,
            function="negative_log_likelihood",
        ),
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
        Metric("yes_rate", "Yes rate", "Share of questions that are answered with Yes."),
        Metric(
            "margin", "Logit margin", "Mean of the largest option logit minus the second largest."
        ),
        Metric(
            "entropy",
            "Entropy",
            "Mean entropy of the probabilities over a question's options.",
            "Σ Σ_k −p_k log p_k / n",
            unit="nats",
        ),
        Metric(
            "n_visual",
            "Visual tokens kept",
            "Mean number of visual tokens that the model is given for a question.",
        ),
        Metric(
            "tokens_per_layer",
            "Visual tokens per layer",
            "Visual tokens that a decoder layer computes on, averaged over layers.",
        ),
        Metric(
            "evidence_coverage",
            "Evidence coverage",
            "How well the kept tokens K represent the image: cosine similarity of each of the N "
            "tokens to the nearest kept token, averaged over tokens and questions.",
            "Σ_i max_{j ∈ K} cos(i, j) / N",
        ),
        Metric(
            "saliency_share",
            "Share of saliency kept",
            "Saliency of the kept tokens as a share of the image's saliency, averaged over "
            "questions; undefined for strategies that choose tokens inside the decoder.",
        ),
        Metric(
            "mean_saliency",
            "Mean saliency kept",
            "Mean saliency of the kept tokens, averaged over questions; undefined for strategies "
            "that choose tokens inside the decoder.",
        ),
    )
}


def catalogued(key: str) -> Metric:
    """Return a metric; one that the catalogue does not have is like a mean, its key in words."""
    return CATALOGUE.get(key) or Metric(key, key.replace("_", " "), "")


def metric_name(key: str) -> str:
    """Return a metric's label, or its key in words if the catalogue does not have it."""
    return catalogued(key).label
