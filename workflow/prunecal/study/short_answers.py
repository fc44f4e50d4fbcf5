"""Short answers: how a text is compared with the answers that a data set accepts.

Two texts are the same answer if they are equal once they are normalised as the evaluation of VQA
does it (Antol et al., arXiv 1505.00468; `vqaEval.py` of github.com/GT-Vision-Lab/VQA, which the
tasks VQAv2, TextVQA and VizWiz of lmms-eval follow): in lower case, without punctuation and
articles, and with digits for the numbers to ten. That evaluation also restores the apostrophes of
some contractions; here all are left out, as by the setting `ignore_punctuation` of lmms-eval.
There is no partial credit.
"""

import re
from collections.abc import Iterable, Sequence

from prunecal.core.errors import PrunecalError

FORM = "short-answer"  # of a data set's settings
SUFFIX = "-short-answers"  # of the names of such data sets, imported ones too
OTHER = "another answer"  # the option that stands for all that is not accepted
SEQUENCE = "sequence"  # the kind of confidence: the probability of the whole answer
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}
ARTICLES = ("a", "an", "the")


def has_short_answers(dataset: str) -> bool:
    """Tell whether the questions of a data set have short answers: its name says so."""
    return dataset.endswith(SUFFIX)


def refuse_other_kind(dataset: str, options: Iterable[Sequence[str]]) -> None:
    """Refuse imported questions that are of another kind than their data set's name says.

    Args:
        dataset: its name.
        options: of each question.

    Raises:
        PrunecalError: all are short answers and the name does not say so, or the reverse.
    """
    listed = list(options)
    if has_short_answers(dataset):
        more = next((one for one in listed if len(one) > 2), None)
        if more is not None:
            raise PrunecalError(
                f"data set {dataset} has a question with {len(more)} options, but names that end "
                f"in {SUFFIX} are of short answers, where nothing can be guessed; name it "
                f"{dataset.removesuffix(SUFFIX)}"
            )
    elif all(len(one) == 2 and one[1] == OTHER for one in listed):
        raise PrunecalError(
            f"all questions of data set {dataset} have the options of short answers, where nothing "
            f"can be guessed; name it {dataset}{SUFFIX}"
        )


def normalised(text: str) -> str:
    """Return an answer as answers are compared; one of nothing but such words stays as it is."""
    plain = " ".join(text.lower().split())
    bare = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)|['’]", "", plain)  # 1,000 and the end of a sentence
    bare = re.sub(r'[;/\[\]"{}()=+\\_\-><@`,?!]', " ", bare)
    words = [DIGITS.get(word, word) for word in bare.split() if word not in ARTICLES]
    return " ".join(words) or plain


def is_accepted(text: str, accepted: Iterable[str]) -> bool:
    """Tell whether an answer is one of those that are accepted."""
    return normalised(text) in set(map(normalised, accepted))
