"""What strategies, metrics and parameters are called in figures, tables and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import plugins
from prunecal.study.schedules import FLOPS, MATCH, MEAN_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

COLUMNS = {  # of tables, where the key itself would not do
    "dataset": "Data set",
    "budget": "Tokens",
    "with": "Correlated with",
    "n": "Questions",
    "n_images": "Images",
    "rho": "Spearman's ρ",
    "p": "p",
    "minimum_detectable": "Smallest detectable difference",
    "ece_at_least": "ECE at least",
    "slope": "Slope",
    "intercept": "Intercept",
    "bins_filled": "Bins filled",
    "largest_bin_share": "Share of the fullest bin",
    "strategies_low": "Over strategies, low",
    "strategies_high": "Over strategies, high",
    "smallest_margin": "Smallest margin that can be shown",
    "ece_margin": "ECE margin",
    "at_next": "Verdict there",
    "p_accuracy": "p (accuracy)",
    "p_ece": "p (ECE)",
    "p_recalibrated": "p (ECE recalibrated)",
    "ece_recalibrated_delta": "Δ ECE recalibrated",
    "ece_provable": "ECE provable",
    "ece_refit_delta": "Δ ECE by refitting",
    "silent": "Stops answering",
    "not_tested": "Not tested because",
    "p_adjusted": "p (adjusted)",
    "expected": "Δ ECE by accuracy alone",
    "beyond": "Δ ECE beyond it",
    "share": "Share of tokens",
    "claim_verdict": "Verdict on the claim",
    "expect": "Expected",
    "in_a": "In A",
    "in_b": "In B",
    "interaction": "A − B",
    "rows": "Questions",
    "distinct": "Distinct questions",
    "tflops": "TFLOP/s",
    "tokens_per_s": "Tokens/s",
    "peak_memory_mb": "Peak memory (MB)",
    "peak_gpu_memory_mb": "Peak GPU memory (MB)",
    "max_logit_difference": "Largest Δ logit",
    "decoder_gflop_per_prompt": "Decoder GFLOP per prompt",
    "answer": "Right answer",
    "dataset_revision": "Data set revision",
    "predictions_sha256": "SHA-256 of predictions",
}

SYMBOLS = {"alpha": "α", "gap_power": "p"}
WORDS = {MATCH: "matched by", MEAN_TOKENS: "mean tokens", FLOPS: "FLOPs"}  # keys and values

SEED = "seed"  # strategies that differ in this parameter alone are drawn as one

CELL_COLUMNS = ("model", "dataset", "subset", "strategy", "family", "budget", "metric")

NUMBER_COLUMNS = (
    "value", "delta", "ci_low", "ci_high", "p", "p_adjusted", "n", "n_images", "bins_filled",
    "largest_bin_share",
)  # fmt: skip


def heading(column: str) -> str:
    """Return what a table's column is called, for example "Δ ECE" for "ece_delta"."""
    if column in COLUMNS:
        return COLUMNS[column]
    changed = column.removesuffix("_delta")
    if changed in CATALOGUE:
        return ("Δ " if changed != column else "") + CATALOGUE[changed].label
    return column.replace("_", " ").capitalize()


def parameter_columns(frame: pd.DataFrame) -> list[str]:
    """List the columns of a metrics or comparisons table that hold strategies' parameters."""
    return [name for name in frame.columns if name not in CELL_COLUMNS + NUMBER_COLUMNS]


def parameters_of(row: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    """Return the parameters of a row's strategy, without missing values."""
    present = {key: row[key] for key in columns}
    return {key: value for key, value in present.items() if value is not None and value == value}


def strategies(frame: pd.DataFrame) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each strategy's (family, parameters) by its label, from any table of cells."""
    columns = parameter_columns(frame)
    distinct = frame.drop_duplicates("strategy")
    return {
        row["strategy"]: (row["family"], parameters_of(row, columns))
        for row in distinct[["strategy", "family", *columns]].to_dict("records")
    }


def is_variation(family: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a parameter outside the strategy family's usual names was changed."""
    return any(not _named(family, key) for key in _off_default(family, parameters))


def strategy_name(
    family: str, parameters: Mapping[str, Any], siblings: list[Mapping[str, Any]] | None = None
) -> str:
    """Return a strategy's name for readers, for example "SCOPE α = 0, p = 2".

    Parameters are named if they are changed from their default, or if they are a usual part of the
    strategy's name and differ between the siblings.

    Args:
        family: the plugin's name.
        parameters: its settings.
        siblings: settings of all strategies of that family in the study, this one among them.
    """
    keys = _off_default(family, parameters)
    for key in parameters:
        differs = len({str(other.get(key)) for other in siblings or []}) > 1
        if key not in keys and _named(family, key) and differs:
            keys.append(key)
    ordered = [key for key in {**_fields(family), **parameters} if key in keys]
    parts = [f"{_symbol(key)}{_text(parameters[key])}" for key in ordered]
    label = plugins.load("strategies", family).LABEL if _is_known(family) else family
    return " ".join([label, ", ".join(parts)]).strip()


def _symbol(key: str) -> str:
    return f"{SYMBOLS[key]} = " if key in SYMBOLS else f"{WORDS.get(key, key.replace('_', ' '))} "


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else WORDS.get(value, str(value))


def _is_known(family: str) -> bool:
    """Tell whether a strategy family is of this project; imported cells may be of others."""
    return family in plugins.names("strategies")


def _fields(family: str) -> dict[str, Any]:
    return plugins.load("strategies", family).Params.model_fields if _is_known(family) else {}


def _named(family: str, key: str) -> bool:
    fields = _fields(family)
    return key not in fields or bool((fields[key].json_schema_extra or {}).get("named", False))


def _off_default(family: str, parameters: Mapping[str, Any]) -> list[str]:
    if not _is_known(family):
        return list(parameters)
    fields = _fields(family)
    return [key for key in fields if key in parameters and parameters[key] != fields[key].default]
