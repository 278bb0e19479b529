"""What a step of coefficient learning costs, beside a step of fine-tuning and beside running the extractors themselves.

    python -m benchmarks.step_cost
    python -m benchmarks.step_cost --sources 2 8 --steps 20 --threads 1

Same network, batch and loss; the kinds of step take turns, so that a slower moment of the machine slows them all, and
medians are compared. Side by side means N forward passes of the extractors, features averaged, and a backward pass
through all of them: what merging features instead of weights costs. Memory is the peak of what torch allocates in a
step on top of the network itself, each kind in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import DenseNet121, ResNet, UNet
from torch import nn

from monai_medmerge import Source, merge

Step = Callable[[], None]


def demo_resnet() -> nn.Module:
    """The ResNet-18 of the classification bundle."""
    return ResNet("basic", [2, 2, 2, 2], [16, 32, 64, 128], 2, 1, conv1_t_size=7, conv1_t_stride=2, num_classes=3)


def densenet() -> nn.Module:
    """DenseNet121 for grey images."""
    return DenseNet121(2, 1, 3)


def unet() -> nn.Module:
    """A 3-D U-Net with residual units."""
    return UNet(3, 1, 3, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm="batch")


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18 of the demo, 64 px, batch 16": (demo_resnet, (16, 1, 64, 64)),
    "DenseNet121, 128 px, batch 16": (densenet, (16, 1, 128, 128)),
    "UNet 3-D, 64^3, batch 2": (unet, (2, 1, 64, 64, 64)),
}


def training_step(network: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> Step:
    """One step of AdamW on everything of the network that takes a gradient."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6)
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(image).square().mean().backward()
        optimizer.step()

    return step


def steps(case: str, count: int, constraint: str) -> dict[str, Callable[[], Step]]:
    """Builders of the kinds of step, by name."""
    build, shape = CASES[case]

    def image() -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def fine_tuning() -> Step:
        network = build()
        return training_step(network, network, image())

    def coefficients() -> Step:
        sources = [Source.from_network(build(), f"source {n}") for n in range(count)]
        merged = merge(build(), sources, constraint=constraint, exclude=["fc.*", "class_layers.*"])
        return training_step(merged, merged, image())

    def side_by_side() -> Step:
        extractors = nn.ModuleList(build() for _ in range(count))
        return training_step(extractors, lambda x: torch.stack([e(x) for e in extractors]).mean(0), image())

    return {"fine-tuning": fine_tuning, "coefficients": coefficients, "side by side": side_by_side}


def medians(kinds: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median seconds of each kind of step, taken in turns after two rounds to warm up.

    Side by side, which is far slower, takes part in every fourth round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(repeats + 2):
        for name, step in kinds.items():
            if name == "side by side" and repeat % 4:
                continue
            start = time.perf_counter()
            step()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(case: str, count: int, constraint: str, kind: str) -> int:
    """Bytes in memory at the peak of two steps and all that they need, in a process of its own (Linux)."""
    torch.set_num_threads(1)
    # What a process holds at its peak includes what its parent held when it was started, unless it is reset.
    Path("/proc/self/clear_refs").write_text("5")
    step = steps(case, count, constraint)[kind]()
    step()
    step()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def in_a_process_of_its_own(function: Callable[..., int], *arguments: Any) -> int:
    """The result of a function that begins with a fresh address space."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(case: str, count: int, constraint: str, repeats: int) -> str:
    """One row of the table."""
    built = {name: build() for name, build in steps(case, count, constraint).items()}
    seconds = medians(built, repeats)
    weights = 4 * sum(parameter.numel() for parameter in CASES[case][0]().parameters())
    memory = {
        kind: in_a_process_of_its_own(peak_memory, case, count, constraint, kind)
        for kind in ("fine-tuning", "coefficients")
    }
    more = (memory["coefficients"] - memory["fine-tuning"]) / weights
    base = seconds["fine-tuning"]
    return (
        f"{case:<40}{count:>8}{1000 * base:>12.0f} ms{seconds['coefficients'] / base:>14.2f}"
        f"{seconds['side by side'] / base:>14.2f}{more:>18.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="one, as `make demo` runs")
    parser.add_argument("--constraint", default="free", help="as in merge.json; softmax is the library's default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    how = f"{arguments.threads} threads, constraint {arguments.constraint}, median of {arguments.steps} steps"
    print(f"torch {torch.__version__}, {how}\n")
    print(f"{'':<40}{'sources':>8}{'fine-tuning':>15}{'coefficients':>14}{'side by side':>14}{'more memory':>18}")
    print(f"{'':<40}{'':>8}{'a step':>15}{'x':>14}{'x':>14}{'x weights':>18}")
    for case in CASES:
        for count in arguments.sources:
            print(measure(case, count, arguments.constraint, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
