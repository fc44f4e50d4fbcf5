import io
import re

import numpy as np
import pytest
from PIL import Image

from prunecal.datasets import check, digits_pope, digits_sqa
from prunecal.digits import canvas as digits

ARTICLE = r"an? "
POLL = re.compile(
    rf"Is there (both )?{ARTICLE}(\w+)(?: (or|and) {ARTICLE}(\w+))? in the image\?\n"
    r"Answer the question using a single word or phrase\."
)


@pytest.fixture(scope="module")
def polls():
    return digits_pope.load(digits_pope.Params(images=60))


@pytest.fixture(scope="module")
def choices():
    return digits_sqa.load(digits_sqa.Params(images=60))


@pytest.fixture(scope="module")
def truth():
    """The names of the digits on each canvas, by image id."""
    return {
        image_id: {digits.NAMES[digit.value] for digit in canvas.digits}
        for image_id, canvas in digits.test_canvases(seed=0, count=60).items()
    }


def scans_of(split):
    return {
        digit.scan for index in range(200) for digit in digits.make_canvas(split, 0, index).digits
    }


def test_train_and_test_canvases_share_no_scan():
    train, test = scans_of("train"), scans_of("test")
    assert len(train) > 300
    assert len(test) > 300
    assert not train & test


def test_scans_are_of_the_digit_that_the_canvas_claims():
    from sklearn.datasets import load_digits

    targets = load_digits().target
    drawn = [digit for index in range(50) for digit in digits.make_canvas("test", 3, index).digits]
    assert all(targets[digit.scan] == digit.value for digit in drawn)


def test_digits_stand_out_at_their_patch_and_nowhere_else():
    for index in range(20):
        canvas = digits.make_canvas("train", 0, index)
        patches = canvas.pixels.reshape(digits.GRID, digits.PATCH, digits.GRID, digits.PATCH)
        contrast = np.ptp(patches, axis=(1, 3)).ravel()
        shown = canvas.patches < digits.BACKGROUND
        assert shown.sum() == len(canvas.digits)
        assert np.median(contrast[shown]) > np.quantile(contrast[~shown], 0.9)
        assert [canvas.patches[digit.patch] for digit in canvas.digits] == [
            digit.value for digit in canvas.digits
        ]


def test_a_canvas_does_not_depend_on_the_others():
    few, many = digits.test_canvases(7, 2), digits.test_canvases(7, 5)
    for image_id, canvas in few.items():
        np.testing.assert_array_equal(canvas.pixels, many[image_id].pixels)


def test_images_are_rgb_files_of_the_canvas(polls):
    image_id, file = next(iter(digits_pope.load(digits_pope.Params(images=1)).images))
    image = Image.open(io.BytesIO(file))
    expected = digits.test_canvases(0, 1)[image_id].pixels
    assert image.mode == "RGB"
    for channel in np.moveaxis(np.asarray(image), 2, 0):
        np.testing.assert_array_equal(channel, expected)


@pytest.mark.parametrize("loader", [digits_pope, digits_sqa])
def test_seed_repeats_every_byte(loader):
    first, second, other = (loader.load(loader.Params(images=5, seed=seed)) for seed in (4, 4, 5))
    assert first.questions.equals(second.questions)
    assert not first.questions.equals(other.questions)
    files = [list(dataset.images) for dataset in (first, second, other)]
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("loader", [digits_pope, digits_sqa])
def test_questions_and_images_are_a_data_set(loader):
    dataset = loader.load(loader.Params(images=5))
    check("digits", dataset.questions)
    used = dataset.questions["image_id"].drop_duplicates().tolist()
    assert [image_id for image_id, _ in dataset.images] == used


def test_each_subset_asks_three_yes_and_three_no_per_image(polls):
    counted = polls.questions.groupby(["image_id", "subset", "label"]).size()
    assert len(counted) == 60 * 3 * 2
    assert set(counted) == {3}
    assert set(polls.questions["subset"]) == {"random", "popular", "adversarial"}


def test_yes_questions_stand_in_all_three_subsets(polls):
    yes = polls.questions[polls.questions["label"] == 0]
    assert set(yes.groupby(["image_id", "text"])["subset"].nunique()) == {3}


def test_each_image_has_twelve_distinct_polls(polls):
    assert polls.questions.groupby("image_id")["text"].nunique().min() >= 12


def test_kind_of_poll_does_not_give_away_the_answer(polls):
    kind = polls.questions["text"].map(lambda text: POLL.fullmatch(text).group(1, 3))
    counted = polls.questions.groupby(["subset", kind])["label"].mean()
    assert len(counted) == 9
    assert set(counted) == {0.5}


def test_poll_labels_are_what_the_canvas_shows(polls, truth):
    for row in polls.questions.itertuples():
        both, first, _, second = POLL.fullmatch(row.text).groups()
        seen = [name in truth[row.image_id] for name in (first, second) if name]
        assert row.options[row.label] == ("Yes" if (all if both else any)(seen) else "No")


def test_negatives_of_popular_polls_are_the_most_frequent_absent_digit(polls, truth):
    names = np.array(digits.NAMES)
    frequency = {name: sum(name in shown for shown in truth.values()) for name in names}
    asked = polls.questions[
        (polls.questions["subset"] == "popular") & (polls.questions["label"] == 1)
    ]
    for row in asked.itertuples():
        both, name, second = POLL.fullmatch(row.text).group(1, 2, 4)
        if second is None and not both:
            absent = [frequency[other] for other in names if other not in truth[row.image_id]]
            assert frequency[name] == max(absent)


def test_choices_are_two_to_five_and_all_letters_can_be_right(choices):
    counts = choices.questions["options"].map(len)
    assert set(counts) == {2, 3, 4, 5}
    assert set(choices.questions["label"]) == {0, 1, 2, 3, 4}
    assert all(options == list("ABCDE")[: len(options)] for options in choices.questions["options"])


def test_some_choices_have_a_hint_and_some_have_none(choices):
    hinted = choices.questions["text"].str.startswith("Context: ")
    assert 0.4 < hinted.mean() < 0.9


def test_one_choice_is_right_and_it_is_the_labelled_one(choices, truth):
    for row in choices.questions.itertuples():
        offered = re.findall(r"^[A-E]\. (\w+)$", row.text, flags=re.MULTILINE)
        shown = truth[row.image_id]
        largest = max(shown, key=digits.NAMES.index)
        right = {
            "presence": [name in shown for name in offered],
            "absence": [name not in shown for name in offered],
            "order": [name == largest for name in offered],
        }[row.subset]
        assert len(offered) == len(set(offered)) == len(row.options)
        assert np.flatnonzero(right).tolist() == [row.label]
