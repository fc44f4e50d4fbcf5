"""Metrics of the answers themselves: how often they are right, and how sure."""

from prunecal.calibration.metric import Metric

POPE = "Li et al., arXiv 2305.10355, section 5.1"

ENTRIES = (
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
    Metric("overconfidence", "Overconfidence", "Mean confidence minus accuracy.", "Σ (c − y) / n"),
    Metric("yes_rate", "Yes rate", "Share of questions that are answered with Yes."),
    Metric(
        "precision",
        "Precision",
        "Share of right answers among the answers Yes.",
        "TP / (TP + FP)",
        higher_is_better=True,
        source=POPE,
    ),
    Metric(
        "recall",
        "Recall",
        "Share of the questions whose right answer is Yes that are answered with Yes.",
        "TP / (TP + FN)",
        higher_is_better=True,
        source=POPE,
    ),
    Metric(
        "f1",
        "F1",
        "Harmonic mean of precision and recall of the answer Yes.",
        "2 TP / (2 TP + FP + FN)",
        higher_is_better=True,
        source=POPE,
    ),
    *(
        Metric(
            f"{key}_over_subsets",
            f"{label}, mean over subsets",
            f"Mean over the data set's subsets of the {label} in each.",
            higher_is_better=True,
            source=POPE,
            pooled=True,
        )
        for key, label in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1"))
    ),
    Metric("margin", "Logit margin", "Mean of the largest option logit minus the second largest."),
    Metric(
        "entropy",
        "Entropy",
        "Mean entropy of the probabilities over a question's options.",
        "Σ Σ_k −p_k log p_k / n",
        unit="nats",
    ),
)
