"""What averaging files costs: peak memory as sources are added, and time beside other ways.

    python -m benchmarks.averaging
    python -m benchmarks.averaging --counts 2 8 --repeats 3 --mergekit OTHER_VENV/bin/python

Every run averages the same files of ResNet50 weights (2-D, 3 channels, 1000 classes, 102 MB each, drawn at random) in
a process of its own, which reports the time from the first file opened to the result written, and its peak of resident
memory, mapped pages and imported libraries included. Runs take turns and medians are given, with the files in the page
cache. The ways:

- streaming: `merge_files`, which also checks that all values are finite;
- loop: every state dict loaded, summed up, divided and saved, with no check;
- mergekit: its `linear` method for networks of any kind (what its command mergekit-pytorch runs), where the Python of
  an environment that has mergekit is given. It is LGPL-3.0 and no dependency of this package: ``pip install mergekit``.
  It raises an error where batch counters of batch-norm layers differ, so those of these files are equal.
"""

# Torch is imported by the processes that are measured and not by the one that starts them: until it is replaced by
# another program, a process counts its parent's memory as its own peak.
from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MIB = 2**20


def generate(paths: Sequence[Path]) -> None:
    """Write ResNet50 weights, other ones into each file."""
    import torch
    from monai.networks.nets import resnet50
    from safetensors.torch import save_file

    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        state = resnet50(spatial_dims=2, n_input_channels=3, num_classes=1000).state_dict()
        # As after equally long trainings: mergekit refuses integers that differ.
        state |= {name: torch.tensor(1000) for name in state if name.endswith("num_batches_tracked")}
        save_file(state, path)


def prepare_streaming() -> Callable[[Sequence[Path], Path], None]:
    """Import, and return what is measured."""
    from monai_medmerge.methods import merge_files

    def run(paths: Sequence[Path], output: Path) -> None:
        merge_files("uniform_average", paths, output, statistics="average")

    return run


def prepare_loop() -> Callable[[Sequence[Path], Path], None]:
    """Import, and return what is measured."""
    # Only so that both begin with the same libraries in memory.
    from safetensors.torch import load_file, save_file

    import monai_medmerge.methods  # noqa: F401

    def run(paths: Sequence[Path], output: Path) -> None:
        states = [load_file(path) for path in paths]
        merged = {}
        for name, first in states[0].items():
            merged[name] = first.clone()
            if first.is_floating_point():
                for state in states[1:]:
                    merged[name] += state[name]
                merged[name] /= len(states)
        save_file(merged, output)

    return run


def prepare_mergekit() -> Callable[[Sequence[Path], Path], None]:
    """Import, and return what is measured; runs in an environment that has mergekit."""
    import torch
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

    def run(paths: Sequence[Path], output: Path) -> None:
        models = [{"model": str(path), "parameters": {"weight": 1.0}} for path in paths]
        config = RawPyTorchMergeConfig.model_validate({"merge_method": "linear", "models": models})
        with torch.no_grad():
            Executor(plan_flat_merge(config, str(output), False, False, MergeOptions())).execute()

    return run


WAYS = {"streaming": prepare_streaming, "loop": prepare_loop, "mergekit": prepare_mergekit}


def measured(way: str, paths: Sequence[Path], output: Path) -> dict[str, float]:
    """Seconds and peak bytes of one run in this process."""
    run = WAYS[way]()
    imported = peak()
    start = time.perf_counter()
    run(paths, output)
    return {"seconds": time.perf_counter() - start, "imported": imported, "peak": peak()}


def peak() -> int:
    """Most memory that this process has had resident so far, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def differences(ours: Path, others: Path) -> str:
    """In words, how far two results are apart."""
    import torch
    from safetensors.torch import load_file

    files = [others] if others.is_file() else sorted(others.glob("*.safetensors"))
    a, b = load_file(ours), {name: tensor for file in files for name, tensor in load_file(file).items()}
    if set(a) != set(b):
        return f"other names: {len(set(a) ^ set(b))}"
    real = max(float((a[n] - b[n]).abs().max()) for n in a if a[n].is_floating_point())
    integers = sum(not torch.equal(a[n], b[n]) for n in a if not a[n].is_floating_point())
    return f"largest difference {real:.1e}, {integers} integer tensors differ"


def in_a_process(python: str, *arguments: str) -> str:
    """Run this file in a process of its own and return what it prints last."""
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:2])} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def benchmark(counts: Sequence[int], repeats: int, mergekit: str | None, folder: Path) -> None:
    """Measure every way for every number of sources and print the table."""
    pythons = {"streaming": sys.executable, "loop": sys.executable} | ({"mergekit": mergekit} if mergekit else {})
    paths = [folder / f"source_{n}.safetensors" for n in range(max(counts))]
    in_a_process(sys.executable, "--generate", *map(str, paths))
    print(f"{'way':<12}{'sources':>8}{'seconds':>10}{'peak':>12}{'above imports':>16}")
    peaks: dict[tuple[str, int], float] = {}
    for count in counts:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in pythons}
        for _ in range(repeats):
            for way, python in pythons.items():
                output = folder / (f"{way}_{count}" + ("" if way == "mergekit" else ".safetensors"))
                text = in_a_process(python, "--run", way, *map(str, [*paths[:count], output]))
                runs[way].append(json.loads(text))
        for way, results in runs.items():
            seconds, imported, most = (
                statistics.median(result[key] for result in results) for key in ("seconds", "imported", "peak")
            )
            peaks[way, count] = most
            above = (most - imported) / MIB
            print(f"{way:<12}{count:>8}{seconds:>10.2f}{most / MIB:>8.0f} MiB{above:>12.0f} MiB", flush=True)
    print()
    for way in pythons:
        few, many = peaks[way, min(counts)], peaks[way, max(counts)]
        print(f"{way}: peak at {max(counts)} sources is {many / few:.3f} of that at {min(counts)}")
    for way in list(pythons)[1:]:
        output = folder / (f"{way}_{max(counts)}" + ("" if way == "mergekit" else ".safetensors"))
        ours = folder / f"streaming_{max(counts)}.safetensors"
        print(f"{way} and streaming: {in_a_process(sys.executable, '--differences', str(ours), str(output))}")


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8], help="numbers of sources")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mergekit", metavar="PYTHON", help="Python of an environment that has mergekit")
    parser.add_argument(
        "--folder", type=Path, help="where the files go (1 GB for 8 sources); a temporary one if not given"
    )
    for internal in ("--generate", "--run", "--differences"):
        parser.add_argument(internal, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        generate([Path(path) for path in arguments.generate])
        print("done")
    elif arguments.run:
        way, *paths = arguments.run
        print(json.dumps(measured(way, [Path(path) for path in paths[:-1]], Path(paths[-1]))))
    elif arguments.differences:
        print(differences(*map(Path, arguments.differences)))
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            benchmark(arguments.counts, arguments.repeats, arguments.mergekit, Path(folder))


if __name__ == "__main__":
    main()
