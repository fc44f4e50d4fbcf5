"""Stages run in this process on a results folder, with the files that the rules would give them."""

from prunecal import mechanisms, summary


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


def first_page(results, folder, figure=b"<svg/>"):
    """Write the report's first page to a folder and return its text."""
    (folder / "figure.svg").write_bytes(figure)
    run(
        summary,
        study=results / "study.json",
        metrics=results / "metrics.parquet",
        comparisons=results / "comparisons.parquet",
        matched=results / "tables" / "matched.csv",
        detectable=results / "detectable.csv",
        claims=results / "claims.json",
        questions=sorted(results.glob("datasets/*/questions.parquet")),
        predictions=sorted(results.glob("*/*/*/*/predictions.parquet")),
        figure=folder / "figure.svg",
        out=folder / "summary.html",
    )
    return (folder / "summary.html").read_text(encoding="utf-8")
