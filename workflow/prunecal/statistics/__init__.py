"""From predictions to verdicts: resampling of images, tests, contrasts and claims."""

from prunecal.statistics.bootstrap import (
    Bootstrap,
    clustered_bootstrap,
    image_folds,
    image_weights,
    interval,
)
from prunecal.statistics.significance import (
    holm,
    minimum_detectable,
    step_down,
    two_sided_p,
    unadjusted_p,
)

__all__ = [
    "Bootstrap",
    "clustered_bootstrap",
    "holm",
    "image_folds",
    "image_weights",
    "interval",
    "minimum_detectable",
    "step_down",
    "two_sided_p",
    "unadjusted_p",
]
