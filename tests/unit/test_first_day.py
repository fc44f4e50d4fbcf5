"""The paper's study on its first day: its file as it is, the Hub's names and ids, thin weights."""

import io
import json
import os
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from helpers import hub_study
from helpers.hub_llava import shapes, shards, true_bytes
from helpers.hub_study import DATASETS, NAME
from helpers.loopback_hub import serve, use
from prunecal import data, encode, infer, model, rank
from prunecal.core.errors import PrunecalError
from prunecal.report.tables import datasets_table
from prunecal.sources import hub
from prunecal.storage import digest_cache, files

CELLS = {("full", 576), ("scope-alpha0", 64), ("saliency", 192), ("fastv-layer2", 64)}


@pytest.fixture(scope="module")
def design():
    return hub_study.design()


@pytest.fixture(scope="module")
def hubs():
    return hub_study.hubs(seed=int(os.environ.get("PRUNECAL_REHEARSAL", "0")))


@pytest.fixture
def online(hubs, tmp_path):
    """Serve the repositories; the cache is the test's own."""
    with pytest.MonkeyPatch.context() as patch, serve(hubs) as address:
        use(patch, address, tmp_path / "cache")
        yield hubs.hubs[0]


class Run:
    """The stages as the rules call them, in this process and in float32 on the CPU."""

    def __init__(self, design, results):
        self.design, self.results = design, results
        self.source = json.dumps(design.models[NAME].source())
        self.settings = design.models[NAME].run_settings() | {"dtype": "float32"}
        self.manifest = results / "manifest.json"

    def model(self, settings=None):
        settings = json.dumps(settings or self.settings)
        options = {"params": self.source, "settings": settings, "weights": None}
        model.main(Namespace(model=NAME, manifest=self.manifest, **options))

    def common(self):
        common = {"manifest": self.manifest, "weights": None, "source": self.source}
        return common | {"settings": json.dumps(self.settings), "device": "cpu", "threads": 1}

    def dataset(self, name):
        """Run all stages of a data set and return the folder of its cells."""
        folder = self.results / name
        paths = {part: folder / f"{part}.parquet" for part in ("questions", "images")}
        settings = self.design.datasets[name]
        params = json.dumps(settings.params())
        data.main(Namespace(dataset=name, loader=settings.loader, params=params, **paths))
        features = folder / "features.safetensors"
        encoded = {"images": paths["images"], "out": features, "signals": [], "budget": None}
        encode.main(Namespace(**self.common(), **encoded))
        cells = [cell for cell in self.design.cells[NAME] if (cell.strategy, cell.budget) in CELLS]
        assert len(cells) == len(CELLS)
        for cell in cells:
            if cell.prunes == "before_llm":
                out = [folder / cell.strategy / "ranking.safetensors"]
                inputs = Namespace(features=features, signals=[], questions=None)
                rank.rank_plugin(inputs, cell.family, [dict(cell.parameters)], [], out)
        infer.main(
            Namespace(
                **self.common(),
                model=NAME,
                layers=None,
                dataset=name,
                cells=json.dumps([cell.settings() for cell in cells]),
                questions=paths["questions"],
                features=features,
                folder=folder,
                store=self.results / "cells",
                batch_tokens=self.design.study.inference.batch_tokens,
            )
        )
        return folder


@pytest.fixture
def read(monkeypatch):
    """List the weight files that are hashed; files of the test's own are new, as none is later."""
    names = []

    def file_digest(path):
        names.append(path.name)
        return digest(path)

    digest = digest_cache.file_digest
    monkeypatch.setattr(digest_cache, "file_digest", file_digest)
    monkeypatch.setattr(digest_cache, "CLOCK_STEP", -60.0)
    return lambda: [name for name in names if name.endswith(".safetensors")]


def test_the_shards_are_as_large_as_the_hubs():
    """14,126,854,144 bytes in files of 4.99, 4.96 and 4.18 GB."""
    sizes = {name: true_bytes(shape) for name, shape in shapes().items()}
    assert (len(sizes), sum(sizes.values())) == (686, 14_126_854_144)
    by_shard = [sum(sizes[name] for name in names) / 1e9 for names in shards()]
    assert [round(size, 2) for size in by_shard] == [4.99, 4.96, 4.18]


@pytest.mark.slow
def test_the_papers_study_runs_from_the_hub_and_gives_the_logits_of_transformers(
    design, online, tmp_path, read
):
    run = Run(design, tmp_path / "results")
    run.model()
    folders = [run.dataset(name) for name in DATASETS]
    assert sorted(read()) == sorted(name for name in online.files if name.endswith("safetensors"))

    edition = files.read_facts(folders[0] / "questions.parquet")["edition"]
    assert edition == "no complete release: 18 questions, 6 distinct pairs with an image"
    table = datasets_table([folder / "questions.parquet" for folder in folders])
    assert table["edition"].fillna("").tolist() == [edition, ""]

    llava = design.models[NAME]
    answered = hub_study.reference(hub.locate(llava.repo, llava.revision, "model"))
    for folder in folders:
        questions = files.read_table(folder / "questions.parquet", ["text", "options"]).to_pylist()
        images = files.read_table(folder / "images.parquet", ["image_id", "bytes"]).to_pylist()
        images = {row["image_id"]: Image.open(io.BytesIO(row["bytes"])) for row in images}
        answers = {
            (strategy, budget): files.read_table(
                folder / strategy / str(budget) / "predictions.parquet", ["image_id", "logits"]
            ).to_pylist()
            for strategy, budget in CELLS
        }
        for at in range(0, len(questions), 2):
            answer, question = answers["full", 576][at], questions[at]
            image = images[answer["image_id"]]
            expected = answered(image, question["text"], question["options"])
            np.testing.assert_allclose(answer["logits"], expected, atol=1e-5, rtol=0)
            for cell, rows in answers.items():  # pruning changes answers
                assert (cell == ("full", 576)) == np.allclose(
                    rows[at]["logits"], expected, atol=1e-5
                )
        assert np.ptp([row["logits"][0] for row in answers["full", 576]]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["visual tokens", "tokenizer", "ids", "answers", "processor"])
def test_what_does_not_fit_is_named_before_the_weights_are_downloaded(
    design, online, tmp_path, monkeypatch, fault
):
    run, changed = Run(design, tmp_path / "results"), dict(online.files)
    monkeypatch.setattr(online, "files", changed)
    monkeypatch.setattr(online, "got", [])
    settings, text = dict(run.settings), changed["tokenizer.json"].decode()
    if fault == "visual tokens":
        settings["visual_tokens"] = 256
        message = "has 576 visual tokens per image but the config says visual_tokens: 256"
    elif fault == "tokenizer":
        del changed["tokenizer.json"]
        message = r"has no tokenizer \(tokenizer.json\)"
    elif fault == "processor":
        del changed["preprocessor_config.json"]
        message = "has no image processor"
    elif fault == "ids":  # what transformers 5 makes of tokenizer.model alone
        tokenizer = json.loads(text)
        tokenizer["normalizer"] = None
        tokenizer["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
        changed["tokenizer.json"] = json.dumps(tokenizer).encode()
        message = r"puts 29871 before and \[13, \d+\] after the image, where LLaVA was trained with"
    else:
        swapped = text.replace('"\\u2581Yes": 3869', '"\\u2581Yes": 1939')
        swapped = swapped.replace('"\\u2581No": 1939', '"\\u2581No": 3869')
        assert swapped != text
        changed["tokenizer.json"] = swapped.encode()
        message = r"makes \[1939\] of the option 'Yes', which is \[3869\] in Llama's vocabulary"
    with pytest.raises(PrunecalError, match=message):
        run.model(settings)
    assert not run.manifest.exists()
    assert [name for name in online.got if name.endswith(".safetensors")] == []
