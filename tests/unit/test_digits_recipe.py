import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from prunecal.datasets import digits_pope, digits_sqa
from prunecal.digits.canvas import NAMES, make_canvas
from prunecal.digits.polls import truth
from prunecal.recipes import digits as recipe
from prunecal.recipes.digits.decoder import _answer
from prunecal.recipes.digits.model import normalise
from prunecal.recipes.digits.questions import Exam, Mix
from prunecal.study.prompts import conversation, pope_text

SHORT = recipe.Params(images=8, tower_steps=2, poll_steps=2, symbol_steps=2, image_steps=2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small models on a busy machine
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits")
    recipe.train(SHORT, path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


def test_training_repeats_every_byte_whatever_torch_threads(folder, tmp_path):
    torch.set_num_threads(2)
    try:
        torch.manual_seed(99)
        recipe.train(SHORT, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    names = sorted(path.name for path in folder.iterdir())
    assert {"model.safetensors", "tokenizer.json", "learning_curve.csv"} <= set(names)
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_training_leaves_the_callers_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe.train(SHORT.model_copy(update={"seed": 1}), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_every_part_is_trained(folder, model, tmp_path):
    curve = recipe.train(SHORT.model_copy(update={"image_steps": 1}), tmp_path)
    assert curve["phase"].unique().tolist() == ["tower", "polls", "symbols", "images"]
    assert list(curve.columns) == ["phase", "step", "metric", "value"]
    shorter = dict(LlavaForConditionalGeneration.from_pretrained(tmp_path).named_parameters())
    moved = {name for name, value in model.named_parameters() if not value.equal(shorter[name])}
    assert any("multi_modal_projector" in name for name in moved)
    assert any("language_model.layers.0" in name for name in moved)
    assert not any("vision_tower" in name for name in moved)  # frozen in the last phase


def test_all_prompts_are_made_of_known_tokens_and_a_few(processor):
    params = digits_pope.Params(images=40).model_dump()
    datasets = [loader.load(loader.Params(**params)) for loader in (digits_pope, digits_sqa)]
    texts = {text for dataset in datasets for text in dataset.questions["text"]}
    rows = processor.tokenizer([conversation("vicuna_v1", text) for text in texts])["input_ids"]
    assert all(processor.tokenizer.unk_token_id not in row for row in rows)
    assert max(map(len, rows)) < 25


def test_tokens_say_what_the_prompt_says(processor):
    prompt = conversation("vicuna_v1", pope_text("Is there an eight or a nine in the image?"))
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(prompt)["input_ids"])
    assert tokens[0] == "<s>"
    assert "".join("".join(tokens[1:]).split()) == "".join(prompt.split())


@pytest.mark.parametrize("answer", ["Yes", "No", "A", "E"])
def test_an_answer_is_one_token_after_the_prompt(processor, answer):
    prompt = conversation("vicuna_v1", pope_text("Is there a six in the image?"))
    asked, answered = (
        processor.tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {answer}")
    )
    assert answered[:-1] == asked
    assert processor.tokenizer.convert_ids_to_tokens(answered[-1]) == answer


def test_processor_gives_the_pixels_that_training_saw(processor):
    canvas = make_canvas("test", 0, 3)
    image = Image.open(io.BytesIO(canvas.png()))
    processed = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    expected = normalise(torch.from_numpy(canvas.pixels)[None])
    torch.testing.assert_close(processed, expected, atol=1e-6, rtol=0)


def test_packed_questions_give_the_loss_of_one_prompt_at_a_time(model, processor):
    canvas = make_canvas("train", 0, 0)
    exam = Exam(processor.tokenizer, [canvas], truth([canvas]), Mix(2, 2))
    image = Image.open(io.BytesIO(canvas.png()))
    losses = []
    for text, answer, _ in exam.questions(0, np.random.default_rng(0)):
        inputs = processor(text=conversation("vicuna_v1", text), images=image, return_tensors="pt")
        target = processor.tokenizer.convert_tokens_to_ids(answer)
        with torch.no_grad():
            losses.append(-model(**inputs).logits[0, -1].log_softmax(-1)[target])
    pixels = normalise(torch.from_numpy(canvas.pixels)[None])
    with torch.no_grad():
        visual = torch.stack(list(model.model.get_image_features(pixels).pooler_output))
        _, metrics = _answer(
            model, exam, visual, exam.pack(np.array([0]), np.random.default_rng(0))
        )
    assert metrics["loss"] == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_marks_are_at_the_choices_and_say_which_is_right(processor):
    canvases = [make_canvas("train", 0, index) for index in range(3)]
    exam = Exam(processor.tokenizer, canvases, truth(canvases), Mix(1, 2))
    packed = exam.pack(np.arange(3), np.random.default_rng(0))
    words = processor.tokenizer.convert_ids_to_tokens
    right = []
    for row, place, mark in zip(*packed.marked.tolist(), words(packed.marks), strict=True):
        letter, choice = words(packed.ids[row, place - 1 : place + 1])
        assert choice in NAMES
        if mark == "Yes":
            right.append(letter.removesuffix("."))
    assert right == words(packed.answers[:, ~packed.is_poll].flatten())
