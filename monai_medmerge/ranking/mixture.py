"""How much each source is to be believed, from a few labels that it has never seen."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from monai_medmerge.errors import DatasetError, SettingError

STEPS = 200
"""Of expectation and maximisation; each makes the posterior no smaller."""
FLOOR = 1e-4
"""A source that is sure and wrong is not ruled out by one image that may be mislabelled."""


def mixture_weights(
    probabilities: Float[Tensor, "source case class *voxel"] | Float[np.ndarray, "source case class *voxel"],
    labels: Int[Tensor, " case *voxel"] | Int[np.ndarray, " case *voxel"],
    prior: float = 2.0,
) -> list[float]:
    """Weights of a mixture of sources that make the labels likely: ``max over w of prod_i (sum_n w_n p_n(y_i | x_i))``.

    Found by expectation and maximisation, with a Dirichlet prior towards equal weights: ``w_n`` is proportional to
    ``prior - 1 + sum_i r_in``, where ``r_in`` is the share of source n in the likelihood of case i. Unbiased only if
    no source has seen these labels. Voxels of one case count as one: they say the same.

    Args:
        probabilities: what each source says of every labelled case, from 0 to 1.
        labels: class numbers.
        prior: alpha of the Dirichlet distribution, the same for each source; 1 for none, large for equal weights.

    Returns:
        One weight for each source, with sum 1; without any case all are equal.

    Raises:
        SettingError: the prior is below 1.
        DatasetError: shapes do not fit, or a label is no class.

    Example:
        >>> right, wrong = [[0.9, 0.1]] * 20, [[0.1, 0.9]] * 20
        >>> [round(weight, 2) for weight in mixture_weights(np.array([right, wrong]), np.zeros(20, int))]
        [0.95, 0.05]
        >>> mixture_weights(np.empty((2, 0, 3)), np.empty(0, int))
        [0.5, 0.5]
    """
    if not prior >= 1:
        raise SettingError("a prior of 1 or more", f"{prior}", "mixture_weights")
    found, wanted = np.asarray(probabilities, np.float64), np.asarray(labels)
    if found.ndim < 3 or found.shape[1:2] + found.shape[3:] != wanted.shape:
        raise DatasetError(f"labels of shape {found.shape[1:2] + found.shape[3:]}", f"{wanted.shape}", "labels")
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < found.shape[2]:
        raise DatasetError(f"class numbers from 0 to {found.shape[2] - 1}", f"{np.unique(wanted).tolist()}", "labels")
    sources, cases = found.shape[:2]
    chosen = np.take_along_axis(found, wanted[None, :, None].astype(np.int64), axis=2)
    likelihood = np.maximum(chosen, FLOOR).reshape(sources, cases, wanted[:1].size if cases else 1)
    weights = np.full(sources, 1 / sources)
    for _ in range(STEPS if cases else 0):
        shares = weights[:, None, None] * likelihood
        shares /= shares.sum(0)
        weights = prior - 1 + shares.mean(2).sum(1)
        weights /= weights.sum()
    return [float(weight) for weight in weights]
