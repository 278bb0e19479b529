"""How long the report of many cases takes, and how large it is.

    python -m benchmarks.report_speed --cases 10000

Two networks' probabilities of five classes, four sites and two sexes, the usual number of resamples; comparison, gate,
every figure and all three files. The networks' own answers take as long as they take and are not in it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from monai_medmerge.evaluation import ReportContent, check, compare_predictions, write_report
from monai_medmerge.evaluation.report.page import PAGE

CLASSES = ["normal", "cyst", "benign", "malignant", "other"]


def measure(cases: int) -> tuple[float, float, int]:
    """Seconds of the comparison with its gate, seconds of the report, and bytes of the page.

    Args:
        cases: how many.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), cases)
    both = [rng.dirichlet(np.ones(len(CLASSES)), cases) + 2 * np.eye(len(CLASSES))[labels] for _ in range(2)]
    reference, candidate = (scores / scores.sum(1, keepdims=True) for scores in both)
    columns = {"site": rng.choice(list("ABCD"), cases).tolist(), "sex": rng.choice(["F", "M"], cases).tolist()}
    start = time.perf_counter()
    found = compare_predictions(reference, candidate, labels, CLASSES, columns)
    gate = check(found)
    compared = time.perf_counter()
    with TemporaryDirectory() as folder:
        write_report(folder, ReportContent("Speed", comparison=found, gate=gate))
        return compared - start, time.perf_counter() - compared, Path(folder, PAGE).stat().st_size


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    cases = parser.parse_args().cases
    compared, written, size = measure(cases)
    print(f"{cases} cases: comparison {compared:.1f} s, report {written:.1f} s, page {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
