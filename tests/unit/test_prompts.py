"""Prompts are LLaVA-1.5's own, to the letter."""

import json
from pathlib import Path

import pytest

from prunecal.core.errors import PrunecalError
from prunecal.study.prompts import conversation, pope_text, scienceqa_text

FROZEN = json.loads((Path(__file__).parent.parent / "vectors" / "prompts.json").read_text())


@pytest.mark.parametrize("sample", FROZEN["pope"])
def test_pope_prompts_are_the_frozen_ones(sample):
    assert conversation("vicuna_v1", pope_text(sample["question"])) == sample["prompt"]


@pytest.mark.parametrize("sample", FROZEN["scienceqa"])
def test_scienceqa_prompts_are_the_frozen_ones(sample):
    text = scienceqa_text(sample["question"], sample["choices"], sample["hint"])
    assert conversation("vicuna_v1", text) == sample["prompt"]


@pytest.mark.parametrize("choices", [["one"], list("pqrstu")])
def test_choices_without_a_letter_are_refused(choices):
    with pytest.raises(PrunecalError, match=f"'Q.' has {len(choices)} choices; give 2 to 5"):
        scienceqa_text("Q?", choices)


def test_an_unknown_template_is_refused_with_the_nearest_one():
    with pytest.raises(PrunecalError, match="'vicuna_v2' is unknown .did you mean 'vicuna_v1'"):
        conversation("vicuna_v2", "Is there a dog?")


def test_a_second_image_placeholder_is_refused():
    with pytest.raises(PrunecalError, match="contains <image>"):
        conversation("vicuna_v1", "What is <image>?")
