"""Calibration error without bins: kernel-smoothed, with a bandwidth chosen by the data.

Source: Błasiok and Nakkiran, Smooth ECE (arXiv 2309.12236), section 4, with the numerical choices
of their package relplot 1.0.3 (grids, truncated Gaussian, dyadic search), so that values agree.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse

from prunecal.calibration._checks import checked

STEPS = 1024  # bandwidths are multiples of 1/1024
SMALLEST = 0.001  # bandwidths below count as too small
COARSE = 1001  # grid points for all but the smallest bandwidths
DENSITY_FLOOR = 1e-4  # added to the smoothed number of rows at each point
WIDE = 11  # multiples of 1/1024 from which the coarse grid and few frequencies are enough
NEGLIGIBLE = 1e-9  # share of a kernel's largest frequency below which one is left out there
FEW = 256  # frequencies; a kernel that needs more is bounded first (see too_small)
DOUBT = 1e-6  # float32 changes less; an error as near to its bandwidth is computed in full


def smooth_calibration_error(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return smECE: |confidence - correct| after smoothing over confidence, averaged over rows.

    A Gaussian, reflected at 0 and 1, smooths the signed residuals; its width is the smallest one
    that is no less than the error it gives. Unlike ECE the value does not jump as a confidence
    crosses the edge of a bin.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `_checks.checked`.
    """
    confidence, correct = checked(confidence, correct)
    cluster = np.zeros(len(confidence), dtype=np.intp)
    return float(smooth_calibration_errors(confidence, correct, cluster, np.ones((1, 1)))[0])


def smooth_calibration_errors(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray
) -> NDArray:
    """Return smECE for R weightings of clusters of rows, float64 [R].

    Arguments are as the attributes of `sample.Sample`.
    """
    ones, row = np.ones(len(confidence)), np.arange(len(confidence))

    @functools.cache
    def histograms(points: int) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Return each cluster's residuals and rows on the grid, [points, clusters]."""
        rounding, shape = _rounding(confidence, points), (len(row), len(weights))
        residual, count = (
            rounding @ sparse.csr_array((values, (row, cluster)), shape=shape)
            for values in (confidence - correct, ones)
        )
        return residual, count

    @functools.cache
    def coarse_residuals() -> NDArray:  # on the grid of nearly all steps, so worth keeping
        return histograms(COARSE)[0] @ weights

    @functools.cache
    def coarse_sizes() -> NDArray:
        return np.abs(coarse_residuals()).astype(np.float32)

    @functools.cache
    def coarse_spectrum() -> NDArray:
        return _spectrum(coarse_residuals().T)

    @functools.cache
    def coarse_cosines() -> NDArray:  # the same as cosines: a reflected histogram is even
        return coarse_spectrum().real.astype(np.float32)

    @functools.cache
    def coarse_rows() -> NDArray:
        return histograms(COARSE)[1].astype(np.float32).toarray()

    @functools.cache
    def weightings() -> NDArray:  # [R, clusters]: rows are selected faster than columns
        return weights.T.astype(np.float32, order="C")

    def error(step: int, columns: NDArray) -> NDArray:
        kernel = _kernel(step)
        residual, _ = histograms(kernel.points)
        if kernel.points == COARSE:
            spectrum = coarse_spectrum()[columns]
        else:
            spectrum = _spectrum((residual @ weights[:, columns]).T)
        return kernel.absolute_sum(spectrum) / density(kernel, columns)

    def density(kernel: _Kernel, columns: NDArray) -> NDArray:
        rows = (kernel.total @ histograms(kernel.points)[1]) @ weights[:, columns]
        return rows + DENSITY_FLOOR * len(kernel.left)

    def too_small(step: int, columns: NDArray) -> NDArray:
        width = step / STEPS
        if width < SMALLEST:
            return np.ones(len(columns), dtype=bool)
        if step < WIDE:
            return width < error(step, columns)
        kernel, waves = _kernel(step), _waves(step)
        total = kernel.total.astype(np.float32)
        mass = weightings()[columns] @ (total @ coarse_rows()) + DENSITY_FLOOR * len(kernel.left)
        errors = np.zeros(len(columns))
        at = np.arange(len(columns))
        if len(waves) > FEW:  # smoothing makes nothing larger, which often is enough to know
            at = np.flatnonzero((total @ coarse_sizes())[columns] / mass > width - DOUBT)
        read = coarse_cosines()[columns[at], : len(waves)] @ waves
        errors[at] = np.abs(read, out=read).sum(axis=1) / mass[at]
        doubtful = np.abs(errors - width) < DOUBT
        if doubtful.any():
            errors[doubtful] = error(step, columns[doubtful])
        return width < errors

    steps = _search(too_small, weights.shape[1])
    result = np.empty(len(steps))
    for step in np.unique(steps):
        columns = np.flatnonzero(steps == step)
        result[columns] = error(int(step), columns)
    return result


def _search(too_small: Callable[[int, NDArray], NDArray], weightings: int) -> NDArray:
    """Return each weighting's smallest bandwidth that is not too small, int [weightings].

    The bandwidth 1 is accepted without a test.
    """
    upper, lower = np.full(weightings, STEPS), np.zeros(weightings, dtype=int)
    for _ in range(STEPS.bit_length() - 1):
        middle = (upper + lower) // 2
        for step in np.unique(middle):
            columns = np.flatnonzero(middle == step)
            rejected = too_small(int(step), columns)
            lower[columns[rejected]] = step
            upper[columns[~rejected]] = step
    return upper


def _rounding(confidence: NDArray, points: int) -> sparse.csr_array:
    """Return [points, n]: each row's mass, shared between the two nearest points of a grid."""
    position = confidence * (points - 1)
    left = np.clip(position.astype(np.intp), 0, points - 2)
    part = position - left
    row = np.arange(len(confidence))
    entries = np.concatenate([1 - part, part])
    index = np.concatenate([left, left + 1]), np.concatenate([row, row])
    return sparse.csr_array((entries, index), shape=(points, len(confidence)))


class _Kernel(NamedTuple):
    """A Gaussian on a grid of `points` points over [0, 1], read out at other positions."""

    points: int
    spectrum: NDArray  # of the kernel, centred on 0, period 2 * (points - 1)
    left: NDArray  # grid index left of each position of evaluation
    part: NDArray  # position of an evaluation point between its two grid points
    total: NDArray  # [points]: what a unit mass at a grid point adds to all positions together

    def absolute_sum(self, spectrum: NDArray) -> NDArray:
        """Return the sum of |smoothed histogram| over the positions of evaluation, float64 [R]."""
        grid = fft.irfft(spectrum * self.spectrum, n=2 * (self.points - 1), axis=1)
        read, right = grid[:, self.left], grid[:, self.left + 1]
        read *= 1 - self.part
        right *= self.part
        read += right
        return np.abs(read, out=read).sum(axis=1)


def _spectrum(histogram: NDArray) -> NDArray:
    """Return the Fourier transform of histograms [R, points] that are reflected at both ends."""
    return fft.rfft(np.concatenate([histogram, histogram[:, -2:0:-1]], axis=1), axis=1)


@functools.cache
def _kernel(step: int) -> _Kernel:
    """Return the kernel of bandwidth step / 1024."""
    width = step / STEPS
    points = max(COARSE, round(20 / width) // 2 + 1)
    distance = np.linspace(0, 1, points) - 0.5
    gaussian = np.exp(-(distance**2) / (2 * width**2)) / (np.sqrt(2 * np.pi) * width)
    period = 2 * (points - 1)
    centred = np.zeros(period)
    centred[(np.arange(points) - points // 2) % period] = gaussian
    spectrum = fft.rfft(centred)
    left, part = _read_out(max(round(10 / width), 200), points)
    # the transpose of smooth(): read-out, circular convolution, reflection
    read = np.bincount(left, 1 - part, period) + np.bincount(left + 1, part, period)
    spread = fft.irfft(fft.rfft(read) * spectrum.conj(), n=period)
    total = spread[:points].copy()
    total[1:-1] += spread[: points - 1 : -1]
    return _Kernel(points, spectrum, left, part, total)


def _read_out(positions: int, points: int) -> tuple[NDArray, NDArray]:
    """Return the grid index left of each position of evaluation, and the part of a step beyond."""
    position = np.linspace(0, 1, positions)
    left = np.clip((position * (points - 1)).astype(np.intp), 0, points - 2)
    return left, (position - left / (points - 1)) * (points - 1)


def _waves(step: int) -> NDArray:
    """Return what each frequency of a histogram adds at the positions of evaluation, [m, P].

    The frequencies are those that the kernel of a bandwidth does not damp to nothing; in their sum
    `_Kernel.absolute_sum` is a matrix product, but rounded otherwise: float32 is enough to tell
    where an error lies that is not in doubt.
    """
    kernel = _kernel(step)
    damping = kernel.spectrum.real
    frequencies = int(np.flatnonzero(damping > NEGLIGIBLE * damping[0])[-1]) + 1
    read = _cosines(len(kernel.left), FEW if frequencies <= FEW else COARSE)[:frequencies]
    return damping[:frequencies, None].astype(np.float32) * read


@functools.cache
def _cosines(positions: int, frequencies: int) -> NDArray:
    """Return an undamped wave of each frequency at positions of evaluation, float32 [m, P]."""
    left, part = _read_out(positions, COARSE)
    period = 2 * (COARSE - 1)
    wave = np.cos(2 * np.pi / period * np.arange(period)) * (2 / period)
    frequency = np.arange(frequencies)
    at_left, at_right = (wave[np.outer(frequency, index) % period] for index in (left, left + 1))
    read = at_left * (1 - part) + at_right * part
    read[frequency % (period // 2) == 0] /= 2  # the constant and the shortest wave have no twin
    return read.astype(np.float32)
