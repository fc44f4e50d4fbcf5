"""No image at all: what the language prior alone answers, a baseline.

Its one budget is 0. The prompt is the model's own template for a text without an image: the
placeholder is left out with all that belongs to it, such as the line break after it or the tokens
around it. Answers depend on the question's text alone, so equal texts are computed once. No token
is kept that could represent a patch: evidence coverage is 0. It is something to compare with, not a
pruned model: a line in figures against the budget, and rows of metrics.csv, but no part of tests,
claims, correlations over cells or the page on trust.
"""

from __future__ import annotations

from prunecal.core.parameters import Parameters

LABEL = "No image (blind)"
PRUNES = "everything"


class Params(Parameters):
    """Nothing is kept, so there is nothing to set."""
