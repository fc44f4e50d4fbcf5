"""Prompts are LLaVA-1.5's own, to the letter."""

import json
from pathlib import Path

import pytest

from prunecal.core.errors import PrunecalError
from prunecal.datasets import pope, scienceqa, vlmevalkit
from prunecal.datasets._wording import Worded
from prunecal.study.prompts import (
    TEMPLATES,
    answer_joint,
    bare,
    conversation,
    pope_text,
    scienceqa_text,
)

FROZEN = json.loads((Path(__file__).parent.parent / "vectors" / "prompts.json").read_text())


@pytest.mark.parametrize("sample", FROZEN["pope"])
def test_pope_prompts_are_the_frozen_ones(sample):
    assert conversation("vicuna_v1", pope_text(sample["question"])) == sample["prompt"]


@pytest.mark.parametrize("sample", FROZEN["scienceqa"])
def test_scienceqa_prompts_are_the_frozen_ones(sample):
    text = scienceqa_text(sample["question"], sample["choices"], sample["hint"])
    assert conversation("vicuna_v1", text) == sample["prompt"]


@pytest.mark.parametrize("sample", FROZEN["vlmevalkit"])
@pytest.mark.parametrize("loader", [pope, scienceqa, vlmevalkit], ids=lambda one: one.LABEL)
def test_vlmevalkits_prompts_are_the_frozen_ones(sample, loader):
    source = {"path": "file.tsv"} if loader is vlmevalkit else {}
    params = loader.Params(**source, wording="vlmevalkit")
    if "choices" in sample:
        text = params.choices(sample["question"], sample["choices"], sample["hint"])
    else:
        text = params.yes_no(sample["question"])
    assert conversation("qwen_vl-vlmevalkit", text) == sample["prompt"]


def test_scienceqa_is_put_in_vlmevalkits_words_if_the_study_says_so():
    params = scienceqa.Params(wording="vlmevalkit")
    text = scienceqa._text(params, "Q?", ["one", "two"], "")
    assert text == params.choices("Q?", ["one", "two"])
    with pytest.raises(PrunecalError, match="give 2 to 5"):
        scienceqa._text(params, "Q?", list("pqrstu"), "")


@pytest.mark.parametrize("choices", [["one"], list("pqrstu")])
def test_choices_without_a_letter_are_refused(choices):
    with pytest.raises(PrunecalError, match=f"'Q.' has {len(choices)} choices; give 2 to 5"):
        scienceqa_text("Q?", choices)


def test_answers_follow_a_space_after_a_word_alone():
    words = {"vicuna_v1", "vip_llava-hf", "llava_next-vicuna-hf", "llava_next-mistral-hf"}
    words |= {"idefics3-hf", "smolvlm-hf"}
    assert {name for name in TEMPLATES if answer_joint(name) == " "} == words
    assert {answer_joint(name) for name in TEMPLATES.keys() - words} == {""}


def test_an_unknown_template_is_refused_with_the_nearest_one():
    with pytest.raises(PrunecalError, match="'vicuna_v2' is unknown .did you mean 'vicuna_v1'"):
        conversation("vicuna_v2", "Is there a dog?")


def test_a_second_image_placeholder_is_refused():
    with pytest.raises(PrunecalError, match="contains <image>"):
        conversation("vicuna_v1", "What is <image>?")


@pytest.mark.parametrize("wording", ["llava", "vlmevalkit"])
def test_a_question_for_the_text_tower_lacks_the_sentence_on_the_answers_form(wording):
    words = Worded(wording=wording)
    assert bare(words.yes_no("Is it red?")) == "Is it red?"
    for choice in ("red", "红"):
        assert bare(words.choices("Which?", [choice, "b"])).endswith("\nB. b")
