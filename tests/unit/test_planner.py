import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecal.engine.planner import PADDING, halves, make_row, plan

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)
TEXT = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@st.composite
def cells(draw):
    """Draw the questions of a cell: image per question, tokens per question, visual tokens."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=25))
    opening = draw(st.lists(st.integers(0, 3), max_size=5))
    texts = [opening + text for text in texts]
    images = draw(st.lists(st.integers(0, 5), min_size=len(texts), max_size=len(texts)))
    return images, texts, draw(st.integers(1, 30)), draw(st.integers(1, 400))


def prompt(row, nth):
    """Return the (token, position) pairs that the row's nth question sees, up to its answer."""
    rest = [at for at, block in enumerate(row.blocks) if block in (0, nth + 1)]
    return [(row.tokens[at], row.offsets[at]) for at in rest if at <= row.answers[nth]]


def size(batch, visual):
    """Return the tokens of a batch with its padding."""
    return len(batch) * max(visual + len(row.tokens) for row in batch)


@given(cells())
@SETTINGS
def test_every_question_stands_in_the_plan_once_with_its_own_image(cell):
    images, texts, visual, batch_tokens = cell
    rows = [row for batch in plan(images, texts, visual, batch_tokens) for row in batch]
    asked = [question for row in rows for question in row.questions]
    assert sorted(asked) == list(range(len(texts)))
    assert all(images[question] == row.image for row in rows for question in row.questions)


@given(cells())
@SETTINGS
def test_a_packed_row_holds_each_questions_unbroken_prompt(cell):
    images, texts, visual, batch_tokens = cell
    for batch in plan(images, texts, visual, batch_tokens):
        for row in batch:
            assert len(row.tokens) == len(row.offsets) == len(row.blocks)
            assert list(row.blocks) == sorted(row.blocks)  # the shared beginning, then each rest
            for nth, question in enumerate(row.questions):
                assert prompt(row, nth) == list(zip(texts[question], range(99), strict=False))
                assert row.blocks[row.answers[nth]] == nth + 1  # the answer's token is its own


@given(cells())
@SETTINGS
def test_what_all_questions_of_a_row_share_is_computed_once(cell):
    images, texts, visual, batch_tokens = cell
    for batch in plan(images, texts, visual, batch_tokens):
        for row in batch:
            mine = [texts[question] for question in row.questions]
            at = row.shared
            ended = any(len(text) == at + 1 for text in mine)
            assert ended or len({text[at] for text in mine}) > 1  # it could not be longer
            assert len(row.tokens) == at + sum(len(text) - at for text in mine)


@given(cells())
@SETTINGS
def test_a_batch_keeps_to_the_budget_unless_it_is_a_single_question(cell):
    images, texts, visual, batch_tokens = cell
    for batch in plan(images, texts, visual, batch_tokens):
        single = len(batch) == 1 and len(batch[0].questions) == 1
        assert single or size(batch, visual) <= batch_tokens


@given(cells())
@SETTINGS
def test_little_of_a_batch_is_padding(cell):
    images, texts, visual, batch_tokens = cell
    for batch in plan(images, texts, visual, batch_tokens):
        filled = sum(visual + len(row.tokens) for row in batch)
        assert 1 - filled / size(batch, visual) <= PADDING + 1e-12


@given(cells())
@SETTINGS
def test_the_plan_depends_on_its_arguments_alone(cell):
    images, texts, visual, batch_tokens = cell
    again = plan(list(images), [tuple(text) for text in texts], visual, batch_tokens)
    assert plan(images, texts, visual, batch_tokens) == again


@given(cells())
@SETTINGS
def test_halving_ends_at_single_questions_and_loses_none(cell):
    images, texts, visual, batch_tokens = cell
    pending = plan(images, texts, visual, batch_tokens)
    seen = []
    while pending:
        batch = pending.pop()
        parts = halves(batch, texts)
        if parts:
            assert len(parts) == 2
            assert all(size(part, visual) < size(batch, visual) for part in parts)
            assert all(texts_of(part, texts) for part in parts)
            pending += parts
        else:
            (row,) = batch
            (question,) = row.questions
            assert prompt(row, 0) == list(zip(texts[question], range(99), strict=False))
            seen.append(question)
    assert sorted(seen) == list(range(len(texts)))


def texts_of(batch, texts):
    """Tell whether each row of a batch still packs its questions' prompts."""
    return all(
        [token for token, _ in prompt(row, nth)] == list(texts[question])
        for row in batch
        for nth, question in enumerate(row.questions)
    )


def test_a_row_of_one_question_is_its_text():
    row = make_row(4, [1], [[9, 9], [5, 6, 7]])
    assert row.tokens == (5, 6, 7)
    assert row.offsets == (0, 1, 2)
    assert row.blocks == (0, 0, 1)
    assert row.answers == (2,)


def test_a_question_that_begins_like_all_of_another_keeps_its_last_token_apart():
    row = make_row(0, [0, 1], [[1, 2], [1, 2, 3]])
    assert row.tokens == (1, 2, 2, 3)
    assert row.offsets == (0, 1, 1, 2)
    assert row.blocks == (0, 1, 2, 2)
    assert row.answers == (1, 3)


def test_equal_questions_of_one_image_are_each_answered():
    row = make_row(0, [0, 1], [[1, 2], [1, 2]])
    assert row.tokens == (1, 2, 2)
    assert row.answers == (1, 2)


def test_an_image_with_many_questions_is_cut_to_fit():
    texts = [[0, number, number] for number in range(1, 9)]
    batches = plan([0] * 8, texts, visual=10, batch_tokens=20)
    assert [len(row.questions) for batch in batches for row in batch] == [4, 4]
    with_all = plan([0] * 8, texts, visual=10, batch_tokens=27)
    assert [len(row.questions) for batch in with_all for row in batch] == [8]


@pytest.mark.parametrize("batch_tokens", [1, 10])
def test_a_budget_below_the_visual_tokens_asks_one_question_at_a_time(batch_tokens):
    batches = plan([0, 0, 1], [[1], [2], [3]], visual=10, batch_tokens=batch_tokens)
    assert [[row.questions for row in batch] for batch in batches] == [[(0,)], [(1,)], [(2,)]]
