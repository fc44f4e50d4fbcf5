"""Provenance and cost of each cell; operations of a decoder on visual tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from prunecal.caching import library_versions, lineage
from prunecal.core.redaction import expanded
from prunecal.report import html
from prunecal.storage import files
from prunecal.storage.checksums import file_digest
from prunecal.storage.schemas import STATED
from prunecal.study.short_answers import SEQUENCE

CELL = ("model", "dataset", "strategy", "budget")
IMPORTED_COLUMNS = {  # of provenance.csv, where a study has imported cells
    "answers_file": "file",
    "scores": "scores",
    "stated_confidence": "confidence",
    "missing_options": "missing_options",
    "rows_with_missing": "rows_with_missing",
    "unseen_probability": "unseen",
}
FURTHER = ("quantization", "group_size", STATED, "cut_off")  # columns, where a cell has any
STATED_KINDS = {
    "verbalised": "what the model put into words",
    "sampled": "the share of sampled answers that agree",
    SEQUENCE: "the probability of a whole answer",
}
# what LlamaConfig of transformers takes where a configuration is silent, as LLaVA-1.5's is
LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


def decoder_shape(source: dict[str, Any], manifest: Path) -> dict[str, int] | None:
    """Return width, intermediate, layers and key_value width of a Llama decoder.

    None if the model's configuration is not available without network, or describes another kind of
    decoder.

    Args:
        source: where the weights come from, as the model's settings say.
        manifest: manifest.json; weights that the workflow trained lie in the same folder.
    """
    path = _config_path(source, manifest)
    if path is None or not path.is_file():
        return None
    config = files.read_json(path).get("text_config", {})
    if config.get("model_type", "llama") != "llama":
        return None
    text = LLAMA | config
    width, heads = text["hidden_size"], text["num_attention_heads"]
    head = text.get("head_dim") or width // heads
    return {
        "width": width,
        "attention": heads * head,
        "key_value": (text.get("num_key_value_heads") or heads) * head,
        "intermediate": text["intermediate_size"],
        "layers": text["num_hidden_layers"],
    }


def decoder_flops(shape: dict[str, int], tokens_per_layer: float) -> float:
    """Return the floating point operations of one prompt's visual tokens in the decoder.

    Two for each weight of the layers' matrices and token: queries, keys, values, output and the
    three of the gated MLP. Products of queries with keys and of attention with values, which grow
    with the square of the prompt, are left out, and so is the text.

    Args:
        shape: from `decoder_shape`.
        tokens_per_layer: visual tokens that a layer computes on, on average.
    """
    attention = 2 * shape["width"] * (shape["attention"] + shape["key_value"])
    mlp = 3 * shape["width"] * shape["intermediate"]
    return 2.0 * shape["layers"] * tokens_per_layer * (attention + mlp)


def provenance_rows(paths: list[Path], shapes: dict[str, dict[str, int] | None]) -> list[dict]:
    """Return a row per cell: identity, what made it, time and amount of computation.

    `provenance.json` is read from the folder of each cell's predictions and is not an input of the
    workflow, since a change of provenance must not recompute a result.

    Args:
        paths: predictions.parquet of all cells.
        shapes: `decoder_shape` of each model.
    """
    rows: list[dict[str, Any]] = []
    imported: list[dict[str, Any]] = []
    further: list[dict[str, Any]] = []
    for path in paths:
        metadata = files.read_facts(path)
        accompanying = path.with_name("provenance.json")
        record = files.read_object(accompanying) if accompanying.is_file() else {}
        cell, shape = metadata["cell"], shapes.get(metadata["cell"]["model"])
        layer_tokens = metadata.get("tokens_per_layer")
        flops = None
        if shape is not None and layer_tokens is not None:
            flops = decoder_flops(shape, layer_tokens) / 1e9
        versions = record.get("versions", {})
        origin = metadata.get(lineage.IMPORTED)
        further.append({key: metadata.get(key) for key in FURTHER})
        imported.append({} if origin is None else origin | record.get(lineage.IMPORTED, {}))
        rows.append(
            {key: cell[key] for key in CELL}
            | {
                "questions": pq.read_metadata(path).num_rows,
                "distinct_questions": record.get("distinct_questions"),
                "visual_tokens_per_layer": layer_tokens,
                "decoder_gflop_per_prompt": flops,
                "seconds": record.get("seconds"),
                "peak_memory_mb": record.get("peak_memory_mb"),
                "peak_gpu_memory_mb": record.get("peak_gpu_memory_mb"),
                "device": record.get("device"),
                "seed": metadata.get("seed"),
                "dtype": metadata.get("dtype"),
                "batch_tokens": metadata.get("batch_tokens"),
                "model_digest": metadata.get("model_digest"),
                "model_revision": metadata.get("model_revision"),
                "dataset_revision": metadata.get("dataset_revision"),
                "predictions_sha256": file_digest(path),
                "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
                "platform": record.get("platform"),
            }
        )
    for key in FURTHER:
        if any(one[key] is not None for one in further):
            rows = [row | {key: one[key]} for row, one in zip(rows, further, strict=True)]
    if any(imported):
        for row, origin in zip(rows, imported, strict=True):
            row |= {column: origin.get(key) for column, key in IMPORTED_COLUMNS.items()}
    return rows


def imported_limits(cells: pd.DataFrame) -> list[str]:
    """Say what is not known of imported cells: who answered, and scores that are missing.

    Args:
        cells: provenance.csv.
    """
    if "answers_file" not in cells:
        return []
    imported = cells[cells["answers_file"].notna()]
    sentences = [
        f"{len(imported)} of {len(cells)} cells hold answers from elsewhere, which this workflow "
        "did not compute: how they were made is as their files say."
    ]
    for kind, meaning in STATED_KINDS.items():
        models = imported.loc[imported["stated_confidence"] == kind, "model"].unique()
        if len(models):
            sentences.append(
                f"Confidence of {', '.join(models)} is {meaning}, not a probability of the "
                "options; it does not compare with that of other models, and metrics that need "
                "every option's probability are left out."
            )
    short = imported[imported["missing_options"].fillna(0) > 0]
    if len(short):
        unbounded = short["unseen_probability"].isna().any()
        largest = short["unseen_probability"].max()
        bound = "nothing bounds" if unbounded else f"at most {largest:.3g} of an answer is"
        sentences.append(
            f"In {len(short)} imported cells {int(short['missing_options'].sum())} options of "
            f"{int(short['rows_with_missing'].sum())} answers have no score and count as "
            f"impossible; {bound} what their probability could be."
        )
    return sentences


def sequence_limits(cells: pd.DataFrame) -> list[str]:
    """Say what sequence confidence is, and how many answers were cut off.

    Args:
        cells: provenance.csv.
    """
    if STATED not in cells:
        return []
    short = cells[cells[STATED] == SEQUENCE]
    cut, names = int(short["cut_off"].sum()), html.listed(short["dataset"].unique())
    sentences = [
        f"On {names} answers are short texts, right if they equal an accepted one, and confidence "
        "is sequence confidence: the probability of the whole answer, its end included, decoded "
        "greedily. It does not compare with the confidence of options, and metrics that need every "
        "option's probability are left out."
    ]
    if cut:
        sentences.append(
            f"{cut} of {int(short['questions'].sum())} short answers were cut off before their end "
            "and count as they stand; raise max_new_tokens of their data set."
        )
    return sentences


def version_limits(versions: Iterable[str]) -> list[str]:
    """Say which versions of the libraries that run models made the cells, if there are several.

    Args:
        versions: column of provenance.csv, for example "python 3.12.1, torch 2.13.0".
    """
    cells = [dict(part.split(" ", 1) for part in text.split(", ")) for text in versions]
    return [f"{remark}." for remark in library_versions.mixed_versions(cells)]


def page_values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the page of provenance shows: what all cells share apart from the rest."""
    shared = [key for key in rows[0] if key not in CELL and len({row[key] for row in rows}) == 1]
    return {
        "rows": rows,
        "shared": shared,
        "columns": [key for key in rows[0] if key not in shared],
        "seconds": sum(row["seconds"] or 0 for row in rows),
    }


def _config_path(source: dict[str, Any], manifest: Path) -> Path | None:
    if source.get("train"):
        return manifest.parent / "weights" / "config.json"
    if source.get("path"):
        return expanded(Path(source["path"])) / "config.json"
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source["repo"], "config.json", revision=source["revision"])
    return Path(cached) if isinstance(cached, str) else None
