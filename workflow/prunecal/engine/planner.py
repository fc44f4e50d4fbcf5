"""Plan micro-batches: which questions share a prefix, and which images share a batch.

Independent of models and tensors. One image is one row of a batch: its visual tokens, then the text
that all its questions begin with, then the rest of each question as a block that attends to the
prefix and to itself. An image's prefix is thus computed once, however many questions it has, and no
key or value is copied per question.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

PADDING = 0.1  # largest share of padding tokens in a micro-batch


@dataclass(frozen=True)
class Row:
    """An image and the questions about it that are computed together.

    Attributes:
        image: index of the image, or of what else gives its questions visual tokens of their own,
            such as a row of a ranking by question.
        questions: indices of its questions, one block each.
        tokens: token ids of the text: the shared beginning, then each question's rest.
        offsets: position of each text token relative to the first text token of its prompt.
        blocks: 0 for the shared beginning, 1 + i for the rest of `questions[i]`.
        answers: per question, the index in `tokens` of its last token, which predicts the answer.
    """

    image: int
    questions: tuple[int, ...]
    tokens: tuple[int, ...] = field(repr=False)
    offsets: tuple[int, ...] = field(repr=False)
    blocks: tuple[int, ...] = field(repr=False)
    answers: tuple[int, ...]

    @property
    def shared(self) -> int:
        """Number of text tokens that all questions of the row begin with."""
        return self.blocks.count(0)


def make_row(image: int, questions: Sequence[int], texts: Sequence[Sequence[int]]) -> Row:
    """Pack some questions of one image; `texts` holds every question's tokens after the image."""
    own = [texts[question] for question in questions]
    shared = _common_prefix(own)
    tokens, offsets, blocks = list(own[0][:shared]), list(range(shared)), [0] * shared
    answers = []
    for block, text in enumerate(own, start=1):
        tokens += text[shared:]
        offsets += range(shared, len(text))
        blocks += [block] * (len(text) - shared)
        answers.append(len(tokens) - 1)
    packed = (tuple(part) for part in (questions, tokens, offsets, blocks, answers))
    return Row(image, *packed)


def plan(
    images: Sequence[int],
    texts: Sequence[Sequence[int]],
    visual: int | Sequence[int],
    batch_tokens: int,
    apart: Sequence[int] | None = None,
) -> list[list[Row]]:
    """Divide a cell's questions into micro-batches.

    Args:
        images: per question, the index of its image.
        texts: per question, its token ids after the image; none may be empty.
        visual: tokens of each image, or of every image.
        batch_tokens: largest number of tokens in a micro-batch, padding included; a row that alone
            exceeds it is split, down to single questions.
        apart: a number per image; images of different numbers never share a micro-batch.

    Returns:
        Micro-batches of rows of similar length, which together hold every question once. The plan
        depends only on the arguments.
    """
    by_image = defaultdict(list)
    for question, image in enumerate(images):
        by_image[image].append(question)
    sizes = visual if not isinstance(visual, int) else dict.fromkeys(images, visual)
    groups: defaultdict[int, list[Row]] = defaultdict(list)
    for image, questions in by_image.items():
        rows = _rows_of_image(image, questions, texts, batch_tokens - sizes[image])
        groups[0 if apart is None else apart[image]] += rows
    batches: list[list[Row]] = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda row: (sizes[row.image], len(row.tokens), row.image, row.questions))
        batches += _batches(group, sizes, batch_tokens)
    return batches


def halves(batch: Sequence[Row], texts: Sequence[Sequence[int]]) -> list[list[Row]]:
    """Split a micro-batch that did not fit into memory in two; [] if it cannot be split."""
    if len(batch) > 1:
        middle = len(batch) // 2
        return [list(batch[:middle]), list(batch[middle:])]
    (row,) = batch
    if len(row.questions) == 1:
        return []
    middle = len(row.questions) // 2
    parts = (row.questions[:middle], row.questions[middle:])
    return [[make_row(row.image, part, texts)] for part in parts]


def _rows_of_image(
    image: int, questions: list[int], texts: Sequence[Sequence[int]], room: int
) -> Iterator[Row]:
    row = make_row(image, questions, texts)
    if len(row.tokens) <= room or len(questions) == 1:
        yield row
        return
    middle = len(questions) // 2
    yield from _rows_of_image(image, questions[:middle], texts, room)
    yield from _rows_of_image(image, questions[middle:], texts, room)


def _batches(
    rows: list[Row], visual: Sequence[int] | Mapping[int, int], batch_tokens: int
) -> Iterator[list[Row]]:
    """Group rows, shortest first, within the limits on tokens and padding.

    The text of a row follows its visual tokens at the same column in all rows.
    """
    batch: list[Row] = []
    filled = longest = 0
    for row in rows:
        image, text = visual[row.image], len(row.tokens)
        padded = (len(batch) + 1) * (image + max(longest, text))
        if batch and (padded > batch_tokens or padded - filled - image - text > PADDING * padded):
            yield batch
            batch, filled, longest = [], 0, 0
        batch.append(row)
        filled += image + text
        longest = max(longest, text)
    if batch:
        yield batch


def _common_prefix(texts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all texts begin with, leaving each at least its last token."""
    longest = min(len(text) for text in texts) - 1
    first = texts[0]
    for at in range(longest):
        if any(text[at] != first[at] for text in texts):
            return at
    return longest
