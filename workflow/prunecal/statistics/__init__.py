"""From predictions to verdicts: resampling of images, tests, contrasts and claims."""

from prunecal.statistics.bootstrap import (
    Bootstrap,
    clustered_bootstrap,
    image_folds,
    image_weights,
    interval,
)
from prunecal.statistics.significance import (
    minimum_detectable,
    smallest_margin,
    step_down,
    unadjusted_p,
)

__all__ = [
    "Bootstrap",
    "clustered_bootstrap",
    "image_folds",
    "image_weights",
    "interval",
    "minimum_detectable",
    "smallest_margin",
    "step_down",
    "unadjusted_p",
]
