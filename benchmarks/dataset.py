"""What `medmerge dataset` costs beyond reading the images: 50,000 small pictures in two classes.

python -m benchmarks.dataset --images 50000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from monai_medmerge.__main__ import main as medmerge
from monai_medmerge.data.gathering import find_items, split
from monai_medmerge.data.gathering.checks import check_items


def main() -> None:
    """Write the pictures, make the dataset, and print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    count = parser.parse_args().images
    with TemporaryDirectory() as folder:
        data = Path(folder, "data")
        rng = np.random.default_rng(0)
        for n in range(count):
            path = data / ("no", "yes")[n % 2] / f"{n // 4:05d}_{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (28, 28), dtype=np.uint8)).save(path)
        items = split(find_items(data), {})
        start = time.perf_counter()
        check_items(items)
        reading = time.perf_counter() - start
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            status = medmerge(["dataset", str(data), "--output", f"{folder}/out", "--patient-pattern", r"(\d+)_"])
        whole = time.perf_counter() - start
    print(f"{count} images: {whole:.0f} s, {reading:.0f} s of it for reading and checking them (status {status})")


if __name__ == "__main__":
    main()
