"""Short answers: decoded greedily on shared prompts, matched with what is accepted, scored."""

import json

import numpy as np
import pytest
import torch

from helpers.tiny_llava import encoded, picture, questions, tiny_llava
from prunecal.core import plugins
from prunecal.engine.session import Session
from prunecal.models.llava import Llava
from prunecal.storage import files
from prunecal.study.prompts import conversation

CPU = torch.device("cpu")
SETTINGS = {"visual_tokens": 16, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
MOST = 6  # tokens of an answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, depth=3, kv_heads=2)
    return folder


@pytest.fixture(scope="module")
def features(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    with torch.inference_mode():
        tokens, saliency = encoded(Llava(folder, SETTINGS, CPU), [picture(0), picture(1)])
    arrays = {"features": tokens.contiguous(), "saliency": saliency}
    files.write_tensors(path, arrays, {"image_id": ["image0", "image1"]})
    return path


def ending_with(folder, ends):
    """Return the model, whose answers end with these tokens."""
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return Llava(folder, SETTINGS, CPU)


def answered(model, features, family, order, batch_tokens):
    session = Session(model, questions(2), features, batch_tokens, max_new_tokens=MOST)
    strategy = plugins.load("strategies", family)
    coverage = np.zeros(2, np.float32)
    return session.run(strategy, strategy.Params(), order.shape[1], list(order), coverage).short


def generated(model, features, text, kept, ends):
    """What transformers' own generate says to one prompt with some visual tokens kept."""
    before, _, after = conversation("vicuna_v1", text).partition("<image>")
    system = model.tokenizer(before)["input_ids"]
    ids = model.tokenizer(before + "<image>" + after)["input_ids"]
    embed = model.model.get_input_embeddings()
    head, tail = (torch.tensor(part) for part in (ids[: ids.index(4)], ids[ids.index(4) + 1 :]))
    assert head.tolist()[: len(system)] == system[: len(head)]
    visual = model.project(features[kept])
    prompt = torch.cat((embed(head), visual, embed(tail)))[None]
    result = model.model.generate(
        inputs_embeds=prompt,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.int64),
        max_new_tokens=MOST,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    (tokens,) = result.sequences.tolist()
    steps = [
        score[0].log_softmax(-1)[token] for score, token in zip(result.scores, tokens, strict=True)
    ]
    finished = tokens[-1] in ends
    return model.text(tokens[:-1] if finished else tokens), sum(steps).exp().item(), finished


@pytest.mark.parametrize(
    ("family", "budget", "batch_tokens"), [("full", 16, 2048), ("saliency", 5, 150)]
)
def test_answers_equal_transformers_generate_one_at_a_time(
    folder, features, monkeypatch, family, budget, batch_tokens
):
    monkeypatch.setattr(Llava, "text", lambda _, tokens: " ".join(map(str, tokens)))
    order = np.stack([np.random.default_rng(image).permutation(16)[:budget] for image in range(2)])
    order = order.astype(np.int16)
    plain = answered(ending_with(folder, [2]), features, family, order, batch_tokens)
    assert not plain.finished.any()
    tokens = [row.split() for row in plain.texts]
    ends = [2, int(tokens[0][1]), int(tokens[-1][3])]
    model = ending_with(folder, ends)
    short = answered(model, features, family, order, batch_tokens)
    values = files.open_arrays(features, framework="pt").get_tensor("features")
    for row, question in questions(2).iloc[::2].iterrows():
        image = int(question["image_id"][-1])
        kept = torch.from_numpy(order[image]).long().sort().values
        with torch.inference_mode():
            says = generated(model, values[image], question["text"], kept, ends)
        assert (short.texts[row], short.finished[row]) == (says[0], says[2])
        assert short.confidence[row] == pytest.approx(says[1], rel=2e-4)
    assert short.finished.any()
    assert set(short.tokens[~short.finished]) <= {MOST}
