"""A results folder of a made-up study: the files that figures and the report read, small and fast.

Accuracy and confidence are drawn from a seeded generator, so nothing here is a finding.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from helpers.stages import run
from prunecal import score
from prunecal.core import plugins
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
from prunecal.study.cells import cells, imported_cell, load_study

MODEL = "toy-llava"
DATASETS = ("toy-pope", "toy-sqa")
IMAGES, EACH = 24, 10  # images enough for tests of differences, and questions about each
TOKENS = 36
BUDGETS = (4, 8, 16)
UNTOLD = "cannot be told"
HOSTILE = "<script>console.error('run')</script><b>Is</b> there a $7$ & an $8?"
STRATEGIES = [
    "full",
    "blind",
    {"strategy": "random", "seed": [0, 1, 2]},
    "saliency",
    {"strategy": "scope", "alpha": [0.0, 0.25, 0.5, 0.75, 1.0]},
    {"strategy": "scope", "alpha": 0.0, "gap_power": [0.5, 2.0, 3.0]},
    "fastv",
    "fastv-two-pass",
]


def study(strategies=None, budgets=BUDGETS, **more):
    """Return the settings of a study on two data sets, as config.yaml gives them."""
    return {
        "title": "A made-up study",
        "models": [{"name": MODEL, "family": "llava", "visual_tokens": TOKENS, "path": "nowhere"}],
        "datasets": [
            {"name": "toy-pope", "loader": "digits-pope"},
            {"name": "toy-sqa", "loader": "digits-sqa"},
        ],
        "strategies": STRATEGIES if strategies is None else strategies,
        "budgets": list(budgets),
        **more,
    }


def all_cells(settings):
    """Return the cells of the study's one model, those that it imports for every data set last."""
    checked = load_study(settings)
    imported = dict.fromkeys(map(imported_cell, checked.imported))
    return [*cells(checked, checked.models[0]), *imported]


def prunes(cell):
    """Return where a cell's tokens are dropped, "elsewhere" if its strategy is not known here."""
    return cell.prunes if cell.family in plugins.names("strategies") else "elsewhere"


def quality(cell, dataset):
    """Return a cell's made-up accuracy and overconfidence."""
    lost = 1 - cell.budget / TOKENS
    harm = {"full": 0, "random": 0.2, "saliency": 0.1, "fastv": 0.25}.get(cell.family, 0.06)
    weight = dict(cell.parameters).get("alpha", 0.5)
    accuracy = (0.84 if dataset == "toy-pope" else 0.74) - harm * lost
    return accuracy, lost * (0.03 + 0.1 * weight + harm / 2)


def metrics(settings):
    """Return metrics and comparisons as data frames."""
    generator = np.random.default_rng(0)
    rows, differences = [], []
    for dataset in DATASETS:
        base = {}
        for cell in all_cells(settings):
            accuracy, over = quality(cell, dataset)
            accuracy += generator.normal(0, 0.01)
            values = {
                "accuracy": accuracy,
                "ece": 0.02 + over,
                "ece_debiased": 0.015 + over,
                "brier": (1 - accuracy) * 0.7 + over / 3,
                "aurc": (1 - accuracy) * 0.4,
                "overconfidence": over,
                "evidence_coverage": 0.6 + 0.4 * cell.budget / TOKENS,
            }
            key = {
                "model": MODEL,
                "dataset": dataset,
                "strategy": cell.strategy,
                "family": cell.family,
                "budget": cell.budget,
                **dict(cell.parameters),
            }
            for metric, value in values.items():
                for subset in ("all", "unique"):
                    shared = {**key, "subset": subset, "metric": metric}
                    base.setdefault(metric, value)
                    wide = 0.012 if metric != "accuracy" else 0.02
                    delta = value - base[metric]
                    counts = {"n": 240, "n_images": IMAGES}
                    low, high = value - wide, value + wide
                    use = {"bins_filled": 8, "largest_bin_share": 0.7}
                    interval = {"ci_low": low, "ci_high": high}
                    rows.append({**shared, "value": value, **interval, **counts, **use})
                    p = float(np.exp(-abs(delta) / wide * 3))
                    differences.append(
                        {
                            **shared,
                            "delta": delta,
                            "ci_low": delta - wide,
                            "ci_high": delta + wide,
                            "p": p,
                            "p_adjusted": min(1.0, 10 * p),
                            **counts,
                        }
                    )
    comparisons = pd.DataFrame(differences)
    pruned = ~comparisons["family"].isin(["full", "blind"])
    return pd.DataFrame(rows), comparisons[pruned].reset_index(drop=True)


def matched(compared):
    """Return matched.csv for comparisons, as if accuracy alone moved ECE by as much."""
    keys = ["model", "dataset", "strategy", "family", "budget"]
    here = compared[compared["subset"] == "all"]
    accuracy, ece = (
        here[here["metric"] == name].set_index(keys)["delta"] for name in ("accuracy", "ece")
    )
    beyond = ece + accuracy
    columns = {"accuracy_delta": accuracy, "ece_delta": ece, "expected": -accuracy}
    columns |= {"beyond": beyond, "ci_low": beyond - 0.01, "ci_high": beyond + 0.01}
    columns |= dict.fromkeys(("p", "p_adjusted"), np.exp(-abs(beyond) / 0.01))
    return pd.DataFrame(columns).reset_index()


def trust(measured, compared):
    """Return the tables of `prunecal.trust` with made-up numbers, by name."""
    keys = ["model", "dataset", "strategy", "family", "budget"]
    here = compared[compared["subset"] == "all"]
    numbers = {
        f"{metric}_{column}": here[here["metric"] == metric].set_index(keys)[name]
        for metric in ("accuracy", "ece_debiased")
        for column, name in (("delta", "delta"), ("delta_low", "ci_low"), ("delta_high", "ci_high"))
    }
    cells = pd.DataFrame(numbers).reset_index()
    cells.columns = cells.columns.str.replace("ece_debiased", "ece")
    cells = cells.assign(
        seeds=1, ece_recalibrated_delta=0.0, overconfidence=0.1, ece_debiased=0.1,
        overconfidence_low=0.08, overconfidence_high=0.12, ece_temperature=0.02,
        ece_refit_delta=-0.08, ece_refit_delta_low=-0.1, ece_refit_delta_high=-0.06,
        accuracy_provable=0.03, ece_provable=0.04,
        **dict.fromkeys(("p_accuracy", "p_ece", "p_recalibrated"), 0.5),
    )  # fmt: skip
    for column, limit in (("verdict", 0.1), ("verdict_recalibrated", 0.2)):
        fine = cells["accuracy_delta"] > -limit
        cells[column] = np.where(fine, "no worse", np.where(cells["budget"] > 4, UNTOLD, "worse"))
    strategies = cells.sort_values("budget").drop_duplicates(["dataset", "strategy"])
    strategies = strategies.assign(
        smallest_budget=strategies["budget"].where(strategies["verdict"] == "no worse"),
        smallest_budget_recalibrated=strategies["budget"], next_budget=4,
        at_next=strategies["verdict"],
        accuracy_margin=0.1, ece_margin=0.1, n_images=IMAGES, not_tested="",
    )  # fmt: skip
    measured = measured[measured["family"] != "blind"]
    thresholds = measured[(measured["subset"] == "all") & (measured["metric"] == "accuracy")]
    shares = ("coverage", "risk", "risk_low", "risk_high", "p", "p_adjusted", "threshold")
    shares += tuple(f"guaranteed_{name}" for name in ("threshold", "coverage", "risk"))
    shares += tuple(f"own_{name}" for name in ("threshold", "coverage"))
    shares += tuple(f"own_guaranteed_{name}" for name in ("threshold", "coverage"))
    thresholds = thresholds[keys].assign(silent=False, **dict.fromkeys(shares, 0.25))
    lowest = measured[(measured["subset"] == "all") & (measured["family"] != "full")]
    selected = lowest[lowest["metric"].isin(["accuracy", "ece_debiased"])]
    selected = selected.drop_duplicates(["dataset", "metric"]).assign(selection="best", among=9)
    return {
        "trust": strategies, "trust_cells": cells, "thresholds": thresholds, "selected": selected,
    }  # fmt: skip


def cell_facts(cell, dataset):
    """Return what a predictions file says of its cell."""
    keys = ("strategy", "family", "budget")
    where = {"model": MODEL, "dataset": dataset, "parameters": dict(cell.parameters)}
    return {"cell": where | {key: getattr(cell, key) for key in keys}}


def answers(cell, dataset, images=IMAGES, each=EACH, seed=0):
    """Return a cell's made-up predictions as an Arrow table."""
    generator = np.random.default_rng([seed, cell.budget, *map(ord, cell.strategy + dataset)])
    accuracy, over = quality(cell, dataset)
    rows = images * each
    options = [["Yes", "No"]] * rows if dataset == "toy-pope" else [["A", "B", "C"]] * rows
    label = np.random.default_rng(seed).integers(0, len(options[0]), rows)  # the same in all cells
    confidence = np.clip(generator.beta(6, 1.5, rows) + over, 0.5, 0.999)
    correct = generator.random(rows) < np.clip(confidence - over - 0.8 + accuracy, 0, 1)
    answer = np.where(correct, label, (label + 1) % len(options[0]))
    logits = np.zeros((rows, len(options[0])))
    rest = len(options[0]) - 1
    logits[np.arange(rows), answer] = np.log(confidence / (1 - confidence) * rest)
    inside = {}
    if prunes(cell) == "inside_llm":  # as if the next patches were merged
        left = [generator.permutation(TOKENS)[: cell.budget + 2] for _ in range(rows)]
        parts = {"kept_patches": slice(cell.budget), "merged_patches": slice(cell.budget, None)}
        inside = {
            name: pa.array([row[part] for row in left], pa.list_(pa.int16()))
            for name, part in parts.items()
        }
    return pa.table(
        {
            "question_id": [f"{dataset}-{row}" for row in range(rows)],
            "image_id": [f"image-{row // each}" for row in range(rows)],
            "subset": [("random", "popular")[row % 2] for row in range(rows)],
            "options": pa.array(options, pa.list_(pa.string())),
            "label": pa.array(label, pa.int8()),
            "logits": pa.array(logits.tolist(), pa.list_(pa.float32())),
            "n_visual": pa.array([cell.budget] * rows, pa.int32()),
            "coverage": pa.array([0.8] * rows, pa.float32()),
            **inside,
        }
    )


def write(folder, settings=None):
    """Write the whole made-up study below `folder`/results and return that path."""
    settings = study() if settings is None else settings
    results = Path(folder) / "results"
    measured, compared = metrics(settings)
    _write_frame(results / "metrics.parquet", measured)
    _write_frame(results / "comparisons.parquet", compared)
    (results / "tables").mkdir()
    matched(compared).to_csv(results / "tables" / "matched.csv", index=False)
    for name, table in trust(measured, compared).items():
        table.to_csv(results / "tables" / f"{name}.csv", index=False)
    keys = ["model", "dataset", "subset", "metric", "n", "n_images"]
    shown = measured[keys].drop_duplicates().assign(minimum_detectable=0.0123, resamples=50)
    shown.to_csv(results / "detectable.csv", index=False)
    cells = measured[["model", "dataset", "strategy", "family", "budget"]].drop_duplicates()
    cells = cells[cells["family"] != "blind"]
    cells.assign(p=0.5, p_adjusted=1.0).to_csv(results / "calibration.csv", index=False)
    files.write_json(results / "study.json", settings)
    claims = [
        _claim("C1", "Pure coverage has lower ECE than the unpruned model.", "contradicted"),
        _claim("C2", "ECE falls as α falls.", "supported"),
        _claim("C3", "Saliency <is> worse.", "not tested"),
    ]
    files.write_json(results / "claims.json", claims)
    for dataset in DATASETS:
        _write_dataset(results / "datasets" / dataset)
        for cell in all_cells(settings):
            place = results / MODEL / dataset / cell.strategy
            files.write_table(
                place / str(cell.budget) / "predictions.parquet",
                answers(cell, dataset),
                cell_facts(cell, dataset),
            )
            files.write_json(
                place / str(cell.budget) / "provenance.json",
                {**files.provenance(), "device": "cpu", "seconds": 1.5, "peak_memory_mb": 700},
            )
            if prunes(cell) == "before_llm":
                _write_ranking(place / "ranking.safetensors", cell)
    weights = results / "models" / MODEL / "weights"
    weights.mkdir(parents=True)
    manifest = {"digest": "0" * 64, "image_mean": [0.5, 0.25, 0.0]}
    files.write_json(results / "models" / MODEL / "manifest.json", manifest)
    curve = [("vision", step, "loss", 3 / step) for step in (1, 2, 4, 8)]
    curve += [("questions", step, "accuracy", 1 - 1 / step) for step in (2, 4, 8)]
    frame = pd.DataFrame(curve, columns=["phase", "step", "metric", "value"])
    frame.to_csv(weights / "learning_curve.csv", index=False)
    return results


def write_sources(results, resamples=50):
    """Write what rival explanations read: score files and saliency.

    Args:
        results: from `write`.
        resamples: of images.
    """
    generator = np.random.default_rng(3)
    for dataset in DATASETS:
        place = results / MODEL / dataset
        saliency = generator.random((IMAGES, TOKENS), dtype=np.float32)
        facts = {"image_id": [f"image-{number}" for number in range(IMAGES)]}
        write_arrays(place / "features.safetensors", {"saliency": saliency}, facts)
        run(
            score,
            predictions=sorted(place.glob("*/*/predictions.parquet")),
            questions=results / "datasets" / dataset / "questions.parquet",
            output=results / "scores" / MODEL / f"{dataset}.safetensors",
            resamples=resamples,
            costly_resamples=resamples // 2,
        )


def _claim(name, statement, verdict):
    case = {"quantity": "ECE, scope-alpha0 - full, 8 tokens", "value": 0.031, "ci_low": 0.019}
    case |= {"ci_high": 0.043, "expect": "< 0", "verdict": verdict}
    words = f"{case['quantity']}: +0.0310 [+0.0190, +0.0430]"
    numbers = [
        {"model": MODEL, "dataset": dataset, "subset": "all"} | case
        for dataset in DATASETS
        if verdict != "not tested"
    ]
    evidence = {
        "words": [
            f"{dataset}, {MODEL}: {words if numbers else 'no cells'} "
            f"(expected < 0 in every case: {verdict})"
            for dataset in DATASETS
        ],
        "numbers": numbers,
    }
    return {"id": name, "statement": statement, "verdict": verdict, "evidence": evidence}


def _write_frame(path, frame):
    files.write_table(path, pa.Table.from_pandas(frame, preserve_index=False), {})
    frame.to_csv(path.with_suffix(".csv"), index=False)


def _write_dataset(folder):
    generator = np.random.default_rng(1)
    ids = [f"image-{number}" for number in range(IMAGES)]
    pictures = []
    for _ in ids:
        held = io.BytesIO()
        smooth = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((96, 72), Image.Resampling.BICUBIC).save(held, "PNG")
        pictures.append(held.getvalue())
    files.write_table(folder / "images.parquet", pa.table({"image_id": ids, "bytes": pictures}), {})
    rows = len(ids) * EACH
    options = ["Yes", "No"] if folder.name == "toy-pope" else ["A", "B", "C"]
    table = pa.table(
        {
            "question_id": [f"{folder.name}-{row}" for row in range(rows)],
            "image_id": [ids[row // EACH] for row in range(rows)],
            "subset": [("random", "popular")[row % 2] for row in range(rows)],
            "text": [HOSTILE] * rows,
            "options": pa.array([options] * rows, pa.list_(pa.string())),
            "label": pa.array([0] * rows, pa.int8()),
        }
    )
    files.write_table(folder / "questions.parquet", table, {"dataset": folder.name})


def _write_ranking(path, cell):
    generator = np.random.default_rng(list(map(ord, cell.strategy)))
    order = np.stack([generator.permutation(TOKENS) for _ in range(IMAGES)]).astype(np.int16)
    if cell.family == "full":
        order = np.tile(np.arange(TOKENS, dtype=np.int16), (IMAGES, 1))
    facts = {
        "image_id": [f"image-{number}" for number in range(IMAGES)],
        "family": cell.family,
        "parameters": dict(cell.parameters),
    }
    coverage = np.ones(order.shape, np.float32)
    write_arrays(path, {"order": order, "coverage": coverage}, json.loads(json.dumps(facts)))
