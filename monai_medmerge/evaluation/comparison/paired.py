"""Paired tests of two networks on the same cases: could the difference be chance?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest, wilcoxon

from monai_medmerge.evaluation.bootstrap import Resampling

MCNEMAR, WILCOXON = "McNemar, exact", "Wilcoxon signed rank"


@dataclass(frozen=True)
class PairedTest:
    """One test.

    Args:
        test: its name.
        of: the class that it is of; empty for all cases.
        worse: cases (of several of one patient: patients) that became worse.
        better: those that became better.
        p: two-sided probability of at least this much if the two were equal; 1 where nothing changed.
        adjusted: `p` after Holm for how many tests there are.
    """

    test: str
    of: str
    worse: int
    better: int
    p: float
    adjusted: float

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self)


def paired_tests(
    changes: Mapping[str, np.ndarray], resampling: Resampling, ranked: bool = False
) -> tuple[PairedTest, ...]:
    """Test every change; several cases of one patient are one observation, their sum (or, ranked, their mean).

    McNemar, Psychometrika 12 (1947), doi 10.1007/BF02295996, in its exact form; Wilcoxon, Biometrics Bulletin 1 (1945),
    doi 10.2307/3001968; Holm, Scandinavian Journal of Statistics 6 (1979).

    Args:
        changes: class, or empty for all, to candidate minus reference of each case, NaN where there is nothing to
            measure. For McNemar's test -1, 0 or 1.
        resampling: for which patient each case is of.
        ranked: Wilcoxon's test in the place of McNemar's, for measures that are more than right and wrong.

    Example:
        >>> found = paired_tests({"": np.array([1, 1, 1, 1, 1, -1, 0])}, Resampling())[0]
        >>> found.better, found.worse, found.p
        (5, 1, 0.21875)
    """
    found = []
    for name, change in changes.items():
        units = _by_unit(np.asarray(change, np.float64), resampling, ranked)
        worse, better = int((units < 0).sum()), int((units > 0).sum())
        if not worse + better:
            p = 1.0
        elif ranked:
            p = float(wilcoxon(units, zero_method="wilcox").pvalue)
        else:
            p = float(binomtest(better, worse + better).pvalue)
        found.append(PairedTest(WILCOXON if ranked else MCNEMAR, name, worse, better, p, p))
    return _holm(found)


def _by_unit(change: np.ndarray, resampling: Resampling, mean: bool) -> np.ndarray:
    known = ~np.isnan(change)
    if resampling.groups is None:
        return change[known]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(resampling.groups))}
    member = np.array([numbers[group] for group in resampling.groups])[known]
    sums, counts = np.bincount(member, change[known]), np.bincount(member)
    kept = counts > 0
    return np.asarray(sums[kept] / counts[kept] if mean else sums[kept])


def _holm(tests: list[PairedTest]) -> tuple[PairedTest, ...]:
    order = sorted(range(len(tests)), key=lambda n: tests[n].p)
    highest, adjusted = 0.0, {}
    for rank, n in enumerate(order):
        highest = max(highest, min(1.0, tests[n].p * (len(tests) - rank)))
        adjusted[n] = highest
    return tuple(replace(test, adjusted=adjusted[n]) for n, test in enumerate(tests))
