"""Stages run in this process on a results folder, with the files that the rules would give them."""

from prunecal import mechanisms, trust
from prunecal.report import first_page, methods, single_questions, tables
from prunecal.study.report_items import TRUST_TABLES


def run(stage, **options):
    """Run a stage; an option is a value or a list of them."""
    command = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        command += ["--" + name.replace("_", "-"), *map(str, values)]
    stage.main(stage.arguments_of(command))


def explain(results, folder):
    """Write the tables of mechanisms, correlations and matched changes to a folder."""
    run(
        mechanisms,
        scores=sorted(results.glob("scores/*/*.safetensors")),
        unpruned=sorted(results.glob("*/*/full/*/predictions.parquet")),
        features=sorted(results.glob("*/*/features.safetensors")),
        rankings=sorted(results.glob("*/*/*/ranking.safetensors")),
        folder=folder,
    )


def ask_trust(results, folder, margin=0.02):
    """Write the tables of thresholds and tests of non-inferiority to a folder."""
    run(
        trust,
        scores=sorted(results.glob("scores/*/*.safetensors")),
        predictions=sorted(results.glob("*/*/*/*/predictions.parquet")),
        accuracy_margin=margin,
        ece_margin=margin,
        folder=folder,
    )


def define(results, folder):
    """Write the pages of definitions and of the cells' past with its table; return the first."""
    run(
        methods,
        study=results / "study.json",
        metrics=results / "metrics.parquet",
        manifests=sorted(results.glob("models/*/manifest.json")),
        predictions=sorted(results.glob("*/*/*/*/predictions.parquet")),
        page=folder / "methods.html",
        provenance=folder / "provenance.html",
        table=folder / "provenance.csv",
    )
    return (folder / "methods.html").read_text(encoding="utf-8")


def tabulate(results, folder):
    """Write the headline table, those of claims and data sets, and the page of all cells.

    `define` comes before it.
    """
    run(
        tables,
        metrics=results / "metrics.parquet",
        comparisons=results / "comparisons.parquet",
        claims=results / "claims.json",
        questions=sorted(results.glob("datasets/*/questions.parquet")),
        provenance=folder / "provenance.csv",
        csv=folder / "headline.csv",
        latex=folder / "headline.tex",
        claims_csv=folder / "claims.csv",
        datasets_csv=folder / "datasets.csv",
        page=folder / "cells.html",
    )


def write_single_questions(results, folder, **options):
    """Write the page of single questions to a folder and return its text."""
    given = {
        "predictions": sorted(results.glob("*/*/*/*/predictions.parquet")),
        "rankings": sorted(results.glob("*/*/*/ranking.safetensors")),
        "questions": sorted(results.glob("datasets/*/questions.parquet")),
        "images": sorted(results.glob("datasets/*/images.parquet")),
        "manifests": sorted(results.glob("models/*/manifest.json")),
        "output": folder / "examples.html",
    }
    run(single_questions, **given | options)
    return (folder / "examples.html").read_text(encoding="utf-8")


def write_first_page(results, folder, figure=b"<svg/>"):
    """Write the report's first page to a folder and return its text."""
    (folder / "figure.svg").write_bytes(figure)
    define(results, folder)
    tabulate(results, folder)
    run(
        first_page,
        study=results / "study.json",
        metrics=results / "metrics.parquet",
        comparisons=results / "comparisons.parquet",
        matched=results / "tables" / "matched.csv",
        detectable=results / "detectable.csv",
        trust=[results / "tables" / f"{name}.csv" for name in TRUST_TABLES],
        claims=results / "claims.json",
        datasets=folder / "datasets.csv",
        provenance=folder / "provenance.csv",
        figure=folder / "figure.svg",
        out=folder / "summary.html",
    )
    return (folder / "summary.html").read_text(encoding="utf-8")
