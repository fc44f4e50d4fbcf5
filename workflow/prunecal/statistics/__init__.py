"""From predictions to verdicts: resampling of images, tests, contrasts and claims."""

from prunecal.statistics.bootstrap import clustered_bootstrap

__all__ = ["clustered_bootstrap"]
