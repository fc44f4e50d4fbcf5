"""Stage `embed`: the questions' texts in CLIP's space, once per distinct text.

A stage of its own, because `encode` reads no questions: other questions leave the features as they
are. On the CPU in float32, so that embeddings do not depend on a job's GPU.

Writes a file for each signal of a text that a strategy of the study reads. `text_embeds`: `signal`
float32 [T, C], of each text as it is asked, cut after 77 tokens. `text_segments`: `signal` float32
[S, C], of each text without the sentence on the answer's form, in segments of 77 tokens, and
`segments` int32 [T], how many each text has. Both hold `norm` float32 [2, D] and `projection`
float32 [C, D], by which ranking makes embeddings of patches from features. That projection belongs
to the states of CLIP's own vision tower, which must be the model's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli
from prunecal.engine import device
from prunecal.models._same_tower import refuse_other_tower
from prunecal.models._text_tower import TextTower
from prunecal.sources import weights
from prunecal.storage import files
from prunecal.storage.arrays import write_tensors
from prunecal.storage.checksums import text_digest
from prunecal.study.prompts import bare

if TYPE_CHECKING:
    from torch import Tensor


def main(arguments: argparse.Namespace) -> None:
    """Embed the texts of a data set's questions."""
    import torch

    device.pick("cpu", arguments.threads)
    source = json.loads(arguments.source)
    described = files.read_object(arguments.manifest)
    place = {key: source[key] for key in ("repo", "revision", "path") if key in source}
    model = files.read_object(arguments.model), arguments.weights
    with (
        weights.checked(place, described) as folder,
        weights.checked(json.loads(arguments.model_source), *model) as of_model,
    ):
        refuse_other_tower(folder, of_model)
        tower = TextTower(folder, source.get("activation"))
    column = files.read_table(arguments.questions, ["text"]).column("text")
    texts = list(dict.fromkeys(column.to_pylist()))
    facts: dict[str, Any] = {
        "model": described["digest"],
        "question": [text_digest(text) for text in texts],
        "epsilon": tower.projection.epsilon,
    }
    shared = {"norm": tower.projection.norm, "projection": tower.projection.matrix}
    for path in arguments.signals:
        signal: dict[str, Tensor] = {}
        if path.stem == "text_segments":
            signal["signal"], counts = tower.embed_segments([bare(text) for text in texts])
            signal["segments"] = torch.tensor(counts, dtype=torch.int32)
        else:
            signal["signal"] = tower.embed(texts)
        write_tensors(path, {**signal, **shared}, facts, [arguments.questions])
    cli.log.info("embedded %d texts", len(texts))


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the text tower's manifest")
    parser.add_argument("--source", required=True, help="JSON: the study's `text_tower`")
    parser.add_argument("--model", type=Path, required=True, help="the model's manifest")
    parser.add_argument("--model-source", required=True, help="JSON: where its weights come from")
    parser.add_argument("--weights", type=Path, help="folder of a model that is trained")
    parser.add_argument("--questions", type=Path, required=True, help="questions.parquet")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--signals", type=Path, nargs="+", required=True, help="files to write")
    cli.run(main, parser.parse_args())
