"""Is a pruned model no worse than the unpruned one by more than a margin?

A test of difference cannot say that two models are alike; a test of non-inferiority can. Its
hypothesis is that the pruned model is worse by the margin or more, and rejecting it shows that
it is not (Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2010).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from prunecal.statistics.bootstrap import standard_error
from prunecal.statistics.comparisons import MOST_UNDEFINED
from prunecal.statistics.significance import FLAT, detected


def noninferiority_p(harm: ArrayLike, draws: NDArray, margin: float, images: int) -> NDArray:
    """Return the p-value of "worse by the margin or more" for each difference, float64 [m].

    The distribution function of Student's t with images - 1 degrees of freedom at (harm - margin)
    by the standard error: the draws' standard deviation times sqrt(images / (images - 1)), since
    resamples vary by that little less. Where no draw differs from another, ((1 - margin) /
    (1 - harm)) ** images: the chance that these images hold none of the smallest share of images
    whose total loss would make the difference the margin.

    Args:
        harm: by how much each pruned cell is worse than the unpruned model, float64 [m].
        draws: the same on each resample, float64 [m, R].
        margin: how much worse is accepted, in the units of `harm`.
        images: number of images that were resampled.

    Returns:
        P-values; NaN where more than 1 % of a row's draws, or its difference, are undefined.
    """
    harm = np.asarray(harm, dtype=np.float64)
    error = standard_error(draws) * np.sqrt(images / max(images - 1, 1))
    varies = error > FLAT
    t = np.divide(harm - margin, error, out=np.zeros(len(harm)), where=varies)
    unseen = np.clip((1 - margin) / (1 - np.minimum(harm, margin)), 0, 1) ** images
    p = np.where(varies, stdtr(images - 1, t), np.where(harm < margin, unseen, 1.0))
    undefined = np.isnan(draws).mean(axis=1) > MOST_UNDEFINED
    return np.where(undefined | np.isnan(harm), np.nan, p)


def passed(chains: Mapping[str, Sequence[float]], level: float = 0.05) -> dict[str, int]:
    """Return how many hypotheses of each chain are rejected, in order, within one family of tests.

    Every chain is tested in its order until a hypothesis is not rejected. The level is shared
    equally among the chains; that of a chain whose hypotheses are all rejected goes to the others
    (a sequentially rejective graph, Bretz et al., Statistics in Medicine 28, 2009). With a chance
    of at most `level`, any true hypothesis of the family is rejected.

    Args:
        chains: p-values in the order of testing, by the chain's name; NaN is not rejected.
        level: of the family.
    """
    counts = dict.fromkeys(chains, 0)
    complete = -1
    while complete != (now := sum(counts[name] == len(p) for name, p in chains.items())):
        complete = now
        share = level / max(len(chains) - complete, 1)
        for name, p in chains.items():
            while counts[name] < len(p) and p[counts[name]] <= share:
                counts[name] += 1
    return counts


def provable_margin(draws: NDArray, chains: int, images: int, level: float = 0.05) -> NDArray:
    """Return the smallest margin within which an equal cell is shown to lie with 80 % power.

    For a hypothesis that is tested at `level` shared by `chains`, see `passed`, on draws over the
    last axis of so many `images`; see `detected`, and `noninferiority_p` of draws that do not vary.
    """
    error, share = standard_error(draws), level / chains
    return np.where(error <= FLAT, 1 - share ** (1 / images), detected(error, images, share))
