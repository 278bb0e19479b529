"""How well features tell classes apart, before anything is trained; and how alike two sets of features are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from monai.utils import optional_import

_EXTRA = "pip install 'monai_medmerge[report]': {}"


def h_score(features: Float[np.ndarray, "case feature"], labels: Int[np.ndarray, " case"]) -> float:
    """Regularised H-score: how much of the features' variance lies between classes.

    ``tr(S^-1 (1 - a) B)``, where B is the covariance of the class means that stand for their cases, and
    ``S = (1 - a) C + a tr(C) / d I`` the covariance C of the features after Ledoit-Wolf shrinkage by a. Ibrahim,
    Ponomareva, Mazumder, "Newer is not always better", arXiv:2110.06893; H-score: Bao et al., ICIP 2019.

    Args:
        features: float (case, feature).
        labels: class numbers, int (case,).

    Returns:
        From 0 (class means are equal) to the number of classes less one (every case is at its class mean).

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> noise = np.random.default_rng(0).normal(size=(100, 3))
        >>> bool(h_score(noise + 5 * labels[:, None], labels) > 0.9 > 0.1 > h_score(noise, labels))
        True
    """
    covariance = _sklearn("covariance")
    centred = features - features.mean(0)
    if not centred.any():
        return 0.0
    shrunk, shrinkage = covariance.ledoit_wolf(centred, assume_centered=True)
    means = np.empty_like(centred)
    for label in np.unique(labels):
        means[labels == label] = centred[labels == label].mean(0)
    between = means.T @ means / len(means)
    return float((1 - shrinkage) * np.trace(np.linalg.solve(shrunk, between)))


def log_evidence(features: Float[np.ndarray, "case feature"], labels: Int[np.ndarray, " case"]) -> float:
    """LogME: log evidence of a Bayesian linear model from features to each class, per case; higher is better.

    ``log p(y | F) / n`` of ``y ~ N(F w, 1 / beta)``, ``w ~ N(0, 1 / alpha)``, with alpha and beta at their maximum,
    averaged over one-hot classes y. You, Liu, Wang, Long, arXiv:2102.11005. The evidence is scikit-learn's
    `BayesianRidge` with flat hyperpriors.

    Args:
        features: float (case, feature).
        labels: class numbers, int (case,).

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> noise = np.random.default_rng(0).normal(size=(100, 3))
        >>> log_evidence(noise + 5 * labels[:, None], labels) > log_evidence(noise, labels)
        True
    """
    linear = _sklearn("linear_model")
    found = []
    for label in np.unique(labels):
        flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
        model = linear.BayesianRidge(fit_intercept=False, compute_score=True, **flat)
        found.append(model.fit(features, (labels == label).astype(np.float64)).scores_[-1] / len(labels))
    return float(np.mean(found))


def linear_probe(
    features: Float[np.ndarray, "case feature"],
    labels: Int[np.ndarray, " case"],
    groups: Int[np.ndarray, " case"] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Cross-validated macro F1 of a logistic regression on standardised features.

    Args:
        features: float (case, feature).
        labels: class numbers, int (case,).
        groups: cases of one group (voxels of an image, images of a patient) stay in one fold.
        folds: at the most; fewer where a class has fewer cases or groups.
        seed: of the folds.

    Returns:
        Macro F1 over the held-out folds together; NaN where a class has fewer than two cases or groups.

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> linear_probe(np.random.default_rng(0).normal(size=(100, 3)) + 9 * labels[:, None], labels)
        1.0
    """
    predictions = cross_validated(features, labels, groups, folds, seed)
    if predictions is None:
        return float("nan")
    return float(_sklearn("metrics").f1_score(labels, predictions, average="macro"))


def cross_validated(
    features: Float[np.ndarray, "case feature"],
    labels: Int[np.ndarray, " case"],
    groups: Int[np.ndarray, " case"] | None = None,
    folds: int = 5,
    seed: int = 0,
    pull: float = 1.0,
    method: Literal["predict", "predict_proba"] = "predict",
) -> np.ndarray | None:
    """What a logistic regression on standardised features says of each case when it was fitted to the others.

    Args:
        features: as of `linear_probe`.
        labels: as of `linear_probe`.
        groups: as of `linear_probe`.
        folds: as of `linear_probe`.
        seed: as of `linear_probe`.
        pull: inverse strength of the L2 penalty.
        method: class numbers (case,), or probabilities (case, class).

    Returns:
        None where a class has fewer than two cases or groups.
    """
    selection, pipeline, preprocessing = map(_sklearn, ("model_selection", "pipeline", "preprocessing"))
    units = np.arange(len(labels)) if groups is None else groups
    classes = np.unique(labels)
    smallest = min((len(np.unique(units[labels == label])) for label in classes), default=0)
    if smallest < 2 or len(classes) < 2:
        return None
    kind: Callable[..., Any] = selection.StratifiedKFold if groups is None else selection.StratifiedGroupKFold
    splits = kind(min(folds, smallest), shuffle=True, random_state=seed)
    regression = _sklearn("linear_model").LogisticRegression(C=pull, max_iter=1000)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), regression)
    return np.asarray(selection.cross_val_predict(model, features, labels, groups=groups, cv=splits, method=method))


def cka(first: Float[np.ndarray, "case a"], second: Float[np.ndarray, "case b"]) -> float:
    """Linear centred kernel alignment of two networks' features of the same cases, without bias of small samples.

    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with ``K = X X'``, ``L = Y Y'``. Kornblith et al., arXiv:1905.00414,
    with the unbiased HSIC of Song et al. (JMLR 2012), because the plain one is near 1 for any two networks that have
    more features than there are cases (Nguyen, Raghu, Kornblith, arXiv:2010.15327).

    Args:
        first: float (case, feature), of at least 4 cases.
        second: float (case, feature) of the same cases.

    Returns:
        1 for features that are equal up to rotation and scale, around 0 (also below) for unrelated ones; NaN where
        there are too few cases or one network's features are constant.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(50, 200))
        >>> round(cka(features, 3 * features[:, ::-1]), 6)
        1.0
        >>> abs(cka(features, np.random.default_rng(1).normal(size=(50, 200)))) < 0.2
        True
    """
    if len(first) < 4:
        return float("nan")
    k, m = (_without_diagonal(x - x.mean(0)) for x in (first, second))
    scale = _hsic(k, k) * _hsic(m, m)
    return float(_hsic(k, m) / np.sqrt(scale)) if scale > 0 else float("nan")


def _without_diagonal(centred: np.ndarray) -> np.ndarray:
    # Scaled first, because squares of squares of small features would underflow.
    centred = centred.astype(np.float64) / max(float(np.abs(centred).max()), np.finfo(np.float64).tiny)
    gram = np.asarray(centred @ centred.T)
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    rows_k, rows_m = k.sum(0), m.sum(0)
    unscaled = (k * m).sum() + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 * (rows_k @ rows_m) / (n - 2)
    return float(unscaled / (n * (n - 3)))


def _sklearn(part: str) -> Any:
    return optional_import(f"sklearn.{part}", descriptor=_EXTRA)[0]
