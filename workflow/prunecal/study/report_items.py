"""What the report shows of a study: names of figures and tables, their categories and labels.

Snakemake sorts categories by the alphabet, hence the numbers.
"""

from prunecal.study.paths import Paths

HEADLINE = "1. Headline"
CALIBRATION = "2. Calibration"
SELECTIVE = "3. Selective prediction"
STRATEGIES = "4. Strategies"
MODEL = "5. Model"
MECHANISMS = "6. Mechanisms"
SINGLE_QUESTIONS = "7. Single questions"
METHODS = "8. Methods"
TABLES = "9. Tables"

BUDGET_FIGURES = {  # metric: category
    "accuracy": HEADLINE,
    "ece_debiased": HEADLINE,
    "brier": CALIBRATION,
    "option_mass": CALIBRATION,
    "answer_rate": CALIBRATION,
    "aurc": SELECTIVE,
}
EXPLANATIONS = {  # figure: category and label
    "recalibration": (CALIBRATION, "ECE before and after recalibration"),
    "bins": (CALIBRATION, "ECE against the number of bins"),
    "matched": (MECHANISMS, "Change of ECE against change of accuracy"),
    "mechanisms": (MECHANISMS, "What goes with accuracy and ECE"),
    "mechanisms_cells": (MECHANISMS, "Accuracy and ECE over cells' properties"),
}
MECHANISM_TABLES = {  # file: what it holds
    "mechanisms": "Properties of every cell",
    "correlations": "Rank correlations over cells",
    "matched": "Change of ECE beyond that of accuracy",
}
TRUST_TABLES = {
    "trust": "Smallest trustworthy budgets",
    "trust_cells": "Tests of non-inferiority",
    "thresholds": "Risk and coverage at thresholds of confidence",
    "selected": "Selected cells",
}
LATEX_TABLES = {
    **TRUST_TABLES,
    **MECHANISM_TABLES,
    "claims": "Claims, comparison by comparison",
    "detectable": "Smallest detectable differences",
    "calibration": "Is each cell calibrated?",
    "datasets": "Data sets",
    "provenance": "What made each cell",
}
# CSV files beside metrics.parquet, not in tables/
IN_AGGREGATES = ("detectable", "calibration", "provenance")


def csv_tables(paths: Paths) -> list[str]:
    """List the CSV files that are also written as LaTeX, in the order of `LATEX_TABLES`."""
    return [
        f"{paths.aggregates if name in IN_AGGREGATES else paths.tables}/{name}.csv"
        for name in LATEX_TABLES
    ]


def tables(paths: Paths) -> list[str]:
    """List the tables that the report shows, as CSV and as LaTeX."""
    headline = [f"{paths.tables}/headline.csv", f"{paths.tables}/headline.tex"]
    return [*headline, *csv_tables(paths), *(f"{paths.tables}/{name}.tex" for name in LATEX_TABLES)]


def table_captions() -> list[str]:
    """List the files that say what each table holds."""
    return [f"reports/captions/{name}_table.rst" for name in ("headline", *LATEX_TABLES)]


def report_items(paths: Paths) -> list[str]:
    """List the files that the report shows; each figure (.svg) has a twin .png for papers."""
    design, figures = paths.design, paths.figures
    return [
        *(f"{figures}/budget_{metric}.svg" for metric in BUDGET_FIGURES),
        *(f"{figures}/sweep_{parameter}.svg" for parameter in design.swept_parameters()),
        *(
            f"{figures}/{name}.svg"
            for name in ("pareto", "cost", "forest_ece_debiased", "risk_coverage", "trust")
        ),
        *(f"{figures}/reliability_{model}_{dataset}.svg" for model, dataset in design.pairs),
        *(
            f"{figures}/kept_tokens_{model}_{dataset}.svg"
            for model, dataset in design.computed_pairs
        ),
        *(f"{figures}/learning_curve_{model}.svg" for model in design.trained),
        *(f"{figures}/{name}.svg" for name in EXPLANATIONS),
        *([f"{paths.aggregates}/examples.html"] if design.computed_pairs else []),
        *(f"{paths.aggregates}/{page}.html" for page in ("trust", "methods", "provenance")),
        *tables(paths),
        f"{paths.tables}/tables.zip",
        f"{paths.tables}/cells.html",
        f"{paths.aggregates}/summary.html",
    ]


def png_twins(items: list[str]) -> list[str]:
    """List the PNG files of the figures among the report's items."""
    return [item.removesuffix(".svg") + ".png" for item in items if item.endswith(".svg")]
