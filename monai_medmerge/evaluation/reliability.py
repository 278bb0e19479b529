"""Whether a network is as often right as it is sure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from monai_medmerge.evaluation.bootstrap import Estimate, Resampling, estimate
from monai_medmerge.evaluation.measures import bin_of, calibration_error, mean

# A wrong answer given with at least this probability is a confident error.
CONFIDENT = 0.9
BINS = 15
# Where the best temperature is looked for, as logarithms: 0.05 to 20.
_TEMPERATURES = (-3.0, 3.0)


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: how sure, how often right, and in how many cases."""

    confidence: float
    accuracy: float
    cases: int


@dataclass(frozen=True)
class Calibration:
    """How well confidence and accuracy agree.

    Args:
        error: expected calibration error.
        temperature: by which scores had to be divided to fit these cases best: above 1, the network is too sure.
        confident_errors: share of cases that are wrong with a confidence of at least 0.9.
        bins: of the reliability diagram, by confidence.
    """

    error: Estimate
    temperature: float
    confident_errors: Estimate
    bins: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {
            "error": self.error.as_dict(),
            "temperature": self.temperature,
            "confident_errors": self.confident_errors.as_dict(),
            "bins": [asdict(entry) for entry in self.bins if entry.cases],
        }


def calibration(
    probabilities: np.ndarray, labels: np.ndarray, resampling: Resampling | None = None, bins: int = BINS
) -> Calibration:
    """Expected calibration error, temperature and confident errors of class probabilities.

    Args:
        probabilities: float (case, class).
        labels: class numbers, int (case,).
        resampling: for the intervals.
        bins: of equal width.

    Example:
        >>> found = calibration(np.array([[0.9, 0.1]] * 10), np.array([0] * 9 + [1]))
        >>> round(found.error.value, 6), round(found.temperature, 2), found.confident_errors.value
        (0.0, 1.0, 0.1)
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    statistics = [calibration_error(confidence, right, bins), mean(confident_errors(probabilities, labels))]
    error, confident = estimate(statistics, len(labels), resampling)
    place = bin_of(confidence, bins)
    return Calibration(
        error=error,
        temperature=temperature(probabilities, labels),
        confident_errors=confident,
        bins=tuple(_bin(confidence[place == n], right[place == n]) for n in range(bins)),
    )


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T for which ``softmax(log p / T)`` has the least negative log-likelihood, from 0.05 to 20.

    Guo et al., arXiv:1706.04599. Fitted to the very cases that are given: a description, not a correction to deploy.

    Args:
        probabilities: float (case, class).
        labels: class numbers, int (case,).

    Example:
        >>> round(temperature(np.array([[0.99, 0.01]] * 10), np.array([0] * 9 + [1])), 2)
        2.09
    """
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))

    def loss(log_temperature: float) -> float:
        found = log_softmax(logarithms / np.exp(log_temperature), axis=1)
        return -float(found[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded").x))


def confident_errors(probabilities: np.ndarray, labels: np.ndarray, confident: float = CONFIDENT) -> np.ndarray:
    """Which cases are wrong with at least this confidence, bool (case,).

    Args:
        probabilities: float (case, class).
        labels: class numbers, int (case,).
        confident: from 0 to 1.
    """
    # A float32 probability of 0.9 is a little less than 0.9.
    return np.asarray((probabilities.argmax(1) != labels) & (probabilities.max(1) >= confident - 1e-6))


def _bin(confidence: np.ndarray, right: np.ndarray) -> Bin:
    if not len(right):
        return Bin(float("nan"), float("nan"), 0)
    return Bin(float(confidence.mean()), float(right.mean()), len(right))
