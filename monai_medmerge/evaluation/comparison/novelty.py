"""Which inputs are far from what a network was trained on, in its own features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation.bootstrap import Estimate, Resampling, estimate
from monai_medmerge.evaluation.measures import mean

neighbors, _ = optional_import("sklearn.neighbors", descriptor="pip install 'monai_medmerge[report]': {}")
NEIGHBOUR = 5
QUANTILE = 0.95


@dataclass(frozen=True)
class Distance:
    """How many inputs are far from the training data, and how wrong the network is there.

    Args:
        threshold: distance that 95 % of the training images keep to one another.
        far: share of inputs beyond it; about 5 % where they are as the training data are.
        errors_far: share of wrong answers among them.
        errors_near: share of wrong answers among the others.
        cases: which inputs are far, by number.
        before: share of inputs that are far in the features of the network in use, where they were looked at.
    """

    threshold: float
    far: Estimate
    errors_far: Estimate
    errors_near: Estimate
    cases: tuple[int, ...]
    before: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        estimates = {"far": self.far, "errors_far": self.errors_far, "errors_near": self.errors_near}
        shown: dict[str, Any] = {name: found.as_dict() for name, found in estimates.items()}
        shown["before"] = self.before.as_dict() if self.before else None
        return {"threshold": self.threshold, **shown, "cases": list(self.cases)}


def distance(
    training: np.ndarray, inputs: np.ndarray, wrong: np.ndarray, resampling: Resampling | None = None
) -> Distance:
    """Distance of each input to its fifth nearest training image, on features standardised by the training images.

    After Sun et al., "Out-of-distribution detection with deep nearest neighbors", arXiv:2204.06507, who bring features
    to unit length; intensities gone wrong show in the length as well, so it is kept here.

    Args:
        training: float (image, feature), of at least 7 images.
        inputs: float (case, feature).
        wrong: bool (case,), whether the network is wrong there.
        resampling: for the intervals.

    Raises:
        SettingError: there are too few training images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> training, usual, odd = (rng.normal(x, 1, (n, 4)) for x, n in ((3, 200), (3, 90), (-3, 10)))
        >>> found = distance(training, np.concatenate([usual, odd]), np.arange(100) > 94)
        >>> set(range(90, 100)) <= set(found.cases), found.errors_near.value
        (True, 0.0)
    """
    if len(training) < NEIGHBOUR + 2:
        raise SettingError(f"at least {NEIGHBOUR + 2} training images", f"{len(training)}", "distance")
    centre, spread = training.mean(0), training.std(0)
    # Features that never vary in training would make every rounding error infinitely far.
    scale = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, np.inf)
    known, unknown = (training - centre) / scale, (inputs - centre) / scale
    index = neighbors.NearestNeighbors(n_neighbors=NEIGHBOUR).fit(known)
    # Without a query, a training image is not its own neighbour.
    threshold = float(np.quantile(index.kneighbors()[0][:, -1], QUANTILE))
    # Rounding alone must not put a copy of a training image beyond it.
    far = index.kneighbors(unknown)[0][:, -1] > threshold + 1e-9
    statistics = [mean(far), mean(wrong, far), mean(wrong, ~far)]
    share, errors_far, errors_near = estimate(statistics, len(inputs), resampling)
    return Distance(threshold, share, errors_far, errors_near, tuple(np.flatnonzero(far).tolist()))
