"""The catalogue of metrics: labels, units, directions, definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


METRICS = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "ace": "Adaptive ECE",
    "mce": "MCE",
    "smece": "Smooth ECE",
    "brier": "Brier score",
    "brier_multiclass": "Brier score, multiclass",
    "nll": "NLL",
    "auroc": "AUROC",
    "aurc": "AURC",
    "e_aurc": "E-AURC",
    "augrc": "AUGRC",
    "risk_at_80_coverage": "Risk at 80 % coverage",
    "coverage_at_5_risk": "Coverage at 5 % risk",
    "mean_confidence": "Mean confidence",
    "overconfidence": "Overconfidence",
    "yes_rate": "Yes rate",
    "ece_temperature": "ECE after temperature scaling",
    "ece_temperature_transfer": "ECE at the unpruned model's temperature",
    "ece_yes": "ECE where it says yes",
    "ece_no": "ECE where it says no",
    "ece_debiased": "ECE, debiased",
    "ece_over": "Overconfident part of ECE",
    "ece_under": "Underconfident part of ECE",
    "ece_5_bins": "ECE in 5 bins",
    "ece_10_bins": "ECE in 10 bins",
    "ece_20_bins": "ECE in 20 bins",
    "ece_30_bins": "ECE in 30 bins",
    "ece_50_bins": "ECE in 50 bins",
    "brier_reliability": "Brier reliability",
    "brier_resolution": "Brier resolution",
    "brier_uncertainty": "Brier uncertainty",
    "temperature": "Fitted temperature",
    "margin": "Logit margin",
    "entropy": "Entropy",
    "tokens_per_layer": "Visual tokens per layer",
    "evidence_coverage": "Evidence coverage",
    "saliency_share": "Share of saliency kept",
    "mean_saliency": "Mean saliency kept",
    "n_visual": "Visual tokens kept",
}


HIGHER_IS_BETTER = {
    "accuracy": True,
    "auroc": True,
    "coverage_at_5_risk": True,
    "ece": False,
    "ace": False,
    "mce": False,
    "smece": False,
    "brier": False,
    "brier_multiclass": False,
    "nll": False,
    "aurc": False,
    "e_aurc": False,
    "augrc": False,
    "risk_at_80_coverage": False,
    "ece_temperature": False,
    "ece_temperature_transfer": False,
    "ece_debiased": False,
    "ece_over": False,
    "ece_under": False,
    "brier_reliability": False,
    "brier_resolution": True,
}


UNITS = {"entropy": "nats", "nll": "nats"}


def metric_name(metric: str) -> str:
    """Return a metric's name, its key if it has none."""
    return METRICS.get(metric, metric.replace("_", " "))


def with_unit(metric: str) -> str:
    """Return a metric's name with its unit, if it has one."""
    return metric_name(metric) + (f" ({UNITS[metric]})" if metric in UNITS else "")


def metric_axis(metric: str) -> str:
    """Return an axis label that says which direction is better."""
    direction = HIGHER_IS_BETTER.get(metric)
    arrow = {True: " (higher is better)", False: " (lower is better)", None: ""}[direction]
    return with_unit(metric) + arrow
