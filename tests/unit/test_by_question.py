"""Strategies that rank for each question, from the questions' texts to the answers."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from helpers.tiny_clip import tiny_clip
from helpers.tiny_llava import picture, questions, tiny_llava
from prunecal import embed, rank
from prunecal.caching import lineage
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine.merged import Merged
from prunecal.engine.session import Session
from prunecal.engine.similarity import UNIT, exact_similarity
from prunecal.models._text_tower import TextTower
from prunecal.models.llava import Llava
from prunecal.sources import model_folder, text_tower
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_tensors
from prunecal.storage.checksums import text_digest
from prunecal.strategies import rank as ranked
from prunecal.strategies import reduce
from prunecal.study.prompts import bare

N, IMAGES = 16, 3
SETTINGS = {"visual_tokens": N, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
BY_QUESTION = [
    name
    for name in plugins.names("strategies")
    if getattr(plugins.load("strategies", name), "PER", "image") == "question"
]
SIGNALS = ("text_embeds", "text_segments", "projected_similarity")


class Study:
    """A folder with what the stages before `rank` write of a tiny model and a tiny CLIP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        whole = tiny_llava(folder / "llava")
        self.clip = tiny_clip(folder / "clip", tower=whole.model.vision_tower)
        self.tower = TextTower(folder / "clip")
        self.model = Llava(folder / "llava", SETTINGS, torch.device("cpu"))
        self.asked = questions(IMAGES)
        self.questions = folder / "questions.parquet"
        table = pa.Table.from_pandas(self.asked, preserve_index=False)
        files.write_table(self.questions, table, {})
        with torch.inference_mode():
            images = [picture(seed) for seed in range(IMAGES)]
            encoded, signals = self.model.encode_signals(images, ["projected_similarity"])
        ids = {"image_id": [f"image{at}" for at in range(IMAGES)]}
        arrays = {
            "features": torch.stack([one.features for one in encoded]),
            "saliency": torch.stack([one.saliency for one in encoded]),
        }
        self.features = folder / "features.safetensors"
        write_tensors(self.features, arrays, ids)
        similarity = {"signal": signals["projected_similarity"]}
        write_tensors(self.signal("projected_similarity"), similarity, ids)
        clip = {"path": str(folder / "clip")}
        manifest = folder / "manifest.json"
        files.write_json(manifest, text_tower.describe(folder / "clip", clip))
        texts = [self.signal(name) for name in SIGNALS if name.startswith("text_")]
        llava = {"path": str(folder / "llava")}
        files.write_json(
            folder / "llava.json", model_folder.describe(folder / "llava", "llava", {})
        )
        common = {"manifest": manifest, "source": json.dumps(clip), "threads": 1}
        common |= {"model": folder / "llava.json", "model_source": json.dumps(llava)}
        common |= {"weights": None}
        embed.main(argparse.Namespace(**common, questions=self.questions, signals=texts))

    def signal(self, name: str) -> Path:
        return self.folder / "signals" / f"{name}.safetensors"

    def rank(self, family: str, budgets: list[int], **parameters) -> Path:
        """Run the stage for one setting of a strategy; return its file."""
        out = self.folder / f"{family}-{len(parameters)}" / "ranking.safetensors"
        inputs = argparse.Namespace(
            features=self.features,
            signals=[self.signal(name) for name in SIGNALS],
            questions=self.questions,
        )
        rank.rank_plugin(inputs, family, [parameters], budgets, [out])
        return out


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("study"))


def alone(study, family, budget, image, text, **parameters):
    """Return the order or the weights of one question about one image, by the public functions."""
    tower, vision = study.tower, study.clip.vision_model
    features = open_arrays(study.features, framework="pt").get_tensor("features")[[image]]
    projected = study.model.project(features)
    with torch.inference_mode():
        normed = vision.post_layernorm(features)
        embeds = {"image_embeds": normed @ tower.projection.matrix.T}
    if family == "trim":
        embeds["text_embeds"] = tower.embed([text])
    else:
        embeds["text_embeds"] = tower.embed_segments([bare(text)])[0]
    if parameters:
        embeds["similarity"] = exact_similarity(projected) / UNIT
    saliency = torch.ones(1, N)
    if family == "trim":
        return reduce(family, features, saliency, budget, **embeds)[1][0]
    return ranked(family, features, saliency, budget, **embeds, **parameters)[0]


def test_the_methods_that_read_questions_are_registered():
    assert {"cdpruner", "trim"} <= set(BY_QUESTION)


@pytest.mark.parametrize(
    ("family", "parameters"), [("cdpruner", {}), ("cdpruner", {"space": "projected"}), ("trim", {})]
)
def test_a_file_holds_what_each_question_has_alone(study, family, parameters):
    path = study.rank(family, [5, 3], **parameters)
    pairs = study.asked[["image_id", "text"]].drop_duplicates()
    for budget in (3, 5):
        held = lineage.ranking(path, budget)
        rows = [(image, text_digest(text)) for image, text in pairs.itertuples(index=False)]
        assert held.pairs == rows  # image by image, as the questions are
        for row, (image, text) in enumerate(pairs.itertuples(index=False)):
            own = alone(study, family, budget, int(image[-1]), text, **parameters)
            if held.places is None:
                assert held.order[row].tolist() == own.tolist()
                assert held.held(row, N).sum() == budget
            else:
                size = budget * (N + 1)
                mine = (held.places >= row * size) & (held.places < (row + 1) * size)
                weights = np.zeros(size, np.float32)
                weights[held.places[mine] - row * size] = held.weight[mine]
                np.testing.assert_allclose(weights.reshape(budget, -1), own)
    assert len({tuple(order.tolist()) for order in held.order}) != IMAGES  # questions differ


@pytest.mark.parametrize("family", BY_QUESTION)
def test_each_question_is_answered_with_its_own_tokens(study, family):
    held = lineage.ranking(study.rank(family, [5]), 5)
    strategy = plugins.load("strategies", family)
    cell = (strategy, strategy.Params(), 5)
    order = held.order
    if held.places is not None:
        order = Merged(held.places, held.weight, held.starts, None)
    sessions = [Session(study.model, study.asked, study.features, tokens) for tokens in (512, 1)]
    answers = sessions[0].run(*cell, order, held.coverage, pairs=held.pairs)
    again = sessions[1].run(*cell, order, held.coverage, pairs=held.pairs)  # one question at a time
    for mine, other in zip(answers.logits, again.logits, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)
    assert answers.n_visual.tolist() == [5] * len(study.asked)
    place = {pair: row for row, pair in enumerate(held.pairs)}
    for at, question in study.asked.iterrows():
        row = place[question["image_id"], text_digest(question["text"])]
        assert answers.coverage[at] == pytest.approx(held.coverage[row])
        single = study.asked.loc[[at]]
        one = Session(study.model, single, study.features, 512)
        mine = [order[row]] if held.places is None else order
        pairs = [held.pairs[row]] if held.places is None else held.pairs
        coverage = held.coverage[[row]] if held.places is None else held.coverage
        (logits,) = one.run(*cell, mine, coverage, pairs=pairs).logits
        np.testing.assert_allclose(answers.logits[at], logits, atol=1e-4)
    with pytest.raises(PrunecalError, match="the ranking is of other questions than these"):
        sessions[0].run(*cell, order, held.coverage, pairs=held.pairs[1:])


def test_what_does_not_fit_the_questions_is_refused(study, tmp_path):
    longer = pd.concat([study.asked, study.asked.tail(1).assign(text="What else?")])
    changed = tmp_path / "questions.parquet"
    files.write_table(changed, pa.Table.from_pandas(longer, preserve_index=False), {})
    kept, study.questions = study.questions, changed
    try:
        with pytest.raises(PrunecalError, match="text_embeds.safetensors lacks a text of the que"):
            study.rank("trim", [3])
        longer.loc[:, "image_id"] = "elsewhere"
        files.write_table(changed, pa.Table.from_pandas(longer, preserve_index=False), {})
        with pytest.raises(PrunecalError, match="asks about 'elsewhere', which has no features"):
            study.rank("trim", [3])
    finally:
        study.questions = kept
    narrow = tmp_path / "features.safetensors"
    file = open_arrays(study.features, framework="pt")
    arrays = {
        "features": file.get_tensor("features")[:, :, 1:].contiguous(),
        "saliency": file.get_tensor("saliency"),
    }
    write_tensors(narrow, arrays, file.facts)
    kept, study.features = study.features, narrow
    try:
        with pytest.raises(PrunecalError, match="47 wide, but the text tower belongs .* width 48"):
            study.rank("cdpruner", [3])
    finally:
        study.features = kept
