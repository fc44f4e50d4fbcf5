"""A smaller image, reduced before the vision tower to about the budget's tokens: a baseline.

arXiv 2510.07143 finds that it beats many pruning methods. Followed: `qwen2_vl.py` of
Chenfei-Liao/VTC-Bench 1c413c4, which divides an image's width and height by a whole number n before
the model's own processor, bicubic, so that a budget is 1 / n^2 of the tokens; here both are scaled
by the square root of the kept share, so that any budget is possible, and the share is of the tokens
that the model has of the unreduced image. (The code also stores the image as JPEG in between.)
Sides are then rounded to whole tokens, so that `n_visual` is about what the budget asks for, and at
least one token; the model's own `min_pixels`, which would enlarge small images, is ignored.

Only families that read images at their own resolution make fewer tokens of a smaller image; others
are refused by name. (The paper also reduces images for LLaVA-OneVision, whose number of tokens
follows in steps of whole tiles and so meets no budget.) Average pooling is the same idea after the
tower, for every family.
"""

from __future__ import annotations

from prunecal.core.parameters import Parameters

LABEL = "Smaller image"
PRUNES = "before_tower"


class Params(Parameters):
    """A smaller image has nothing to set: the budget says how small."""
