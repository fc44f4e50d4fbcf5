"""From predictions to verdicts: resampling of images, tests, contrasts and claims."""

from prunecal.statistics.bootstrap import Bootstrap, clustered_bootstrap, image_weights, interval
from prunecal.statistics.significance import step_down, unadjusted_p

__all__ = [
    "Bootstrap", "clustered_bootstrap", "image_weights", "interval", "step_down", "unadjusted_p",
]  # fmt: skip
