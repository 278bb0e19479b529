"""Channel groups found, and the time it takes, beside Torch-Pruning's dependency graph and the rebasin package.

    pip install --no-deps torch-pruning==1.6.1 rebasin==0.0.47 torchview graphviz
    python -m benchmarks.alignment_groups
    python -m benchmarks.alignment_groups --only ResNet50 DenseNet121

Nothing here is a dependency; a package that is not installed is left out of the table. Seconds are of processor time,
so that other work on the machine does not count, the best of `--repeats`; ours are given without and with the check
that permutes a copy, which the others lack. Afterwards, outside the time, the result is put to use: all our groups are
permuted at random, rebasin matches two networks in one sweep, and the output is compared with what it was (ours in
evaluation and training, rebasin's in evaluation). Torch-Pruning cannot permute; its groups are its own list of those
that can be pruned, of two channels or more and without the output layers'. A rival that needs longer than `--limit` is
stopped. The last column is what matching a second, independently drawn network by weights takes.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import importlib.util
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import monai.networks.nets as nets
import torch
from torch import nn

from monai_medmerge.networks.alignment.assignment import assign_by_weights
from monai_medmerge.networks.alignment.invariance import changed_by, random_copy
from monai_medmerge.networks.alignment.permutation import channel_groups

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]

CASES: dict[str, Case] = {
    "ResNet18": (lambda: nets.resnet18(spatial_dims=2, n_input_channels=1, num_classes=2), (2, 1, 64, 64)),
    "ResNet50": (lambda: nets.resnet50(spatial_dims=2, n_input_channels=1, num_classes=2), (2, 1, 64, 64)),
    "ResNet50 3-D": (lambda: nets.resnet50(spatial_dims=3, n_input_channels=1, num_classes=2), (2, 1, 32, 32, 32)),
    "DenseNet121": (lambda: nets.DenseNet121(2, 1, 2), (2, 1, 64, 64)),
    "SEResNet50": (lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=2), (2, 1, 64, 64)),
    "EfficientNet-B0": (lambda: nets.EfficientNetBN("efficientnet-b0", False, True, 2, 1, 2), (2, 1, 64, 64)),
    "UNet": (lambda: nets.UNet(2, 1, 3, (16, 32, 64, 128), (2, 2, 2), num_res_units=2), (1, 1, 64, 64)),
    "UNet 3-D, batch-norm": (
        lambda: nets.UNet(3, 1, 3, (16, 32, 64), (2, 2), num_res_units=2, norm="batch"), (1, 1, 32, 32, 32),
    ),
    "BasicUNet": (lambda: nets.BasicUNet(2, 1, 3), (1, 1, 64, 64)),
    "DynUNet": (
        lambda: nets.DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], deep_supervision=True, res_block=True),
        (1, 1, 64, 64),
    ),
    "SegResNet": (lambda: nets.SegResNet(2, 16, 1, 3), (1, 1, 64, 64)),
    "SegResNetDS": (lambda: nets.SegResNetDS(2, 16, 1, 3, blocks_down=(1, 2, 2)), (1, 1, 64, 64)),
    "VNet": (lambda: nets.VNet(2, 1, 3, dropout_dim=2), (1, 1, 64, 64)),
    "AttentionUnet": (lambda: nets.AttentionUnet(2, 1, 3, (16, 32, 64), (2, 2)), (1, 1, 64, 64)),
    "FlexibleUNet": (lambda: nets.FlexibleUNet(1, 3, "efficientnet-b0", False), (1, 1, 64, 64)),
    "MedNeXt": (lambda: nets.MedNeXt(2, 16, 1, 3), (1, 1, 64, 64)),
    "AutoEncoder": (lambda: nets.AutoEncoder(2, 1, 1, (16, 32), (2, 2), num_res_units=1), (1, 1, 64, 64)),
    "ViT": (
        lambda: nets.ViT(1, (32, 32), (8, 8), 192, 384, 4, 4, classification=True, spatial_dims=2), (1, 1, 32, 32),
    ),
    "UNETR": (lambda: nets.UNETR(1, 3, (32, 32, 32), 8, 96, 192, 4), (1, 1, 32, 32, 32)),
    "SwinUNETR": (lambda: nets.SwinUNETR(1, 3, feature_size=12, spatial_dims=2), (1, 1, 64, 64)),
}  # fmt: skip


Found = tuple[int, Callable[[], float] | None]


def ours(network: nn.Module, other: nn.Module, image: torch.Tensor, check: bool = False) -> Found:
    """Groups of `channel_groups`."""
    del other
    groups = channel_groups(network, image, check=check)

    def change() -> float:
        probe = random_copy(network)
        orders = [torch.randperm(group.size) for group in groups.groups]
        state = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
        return changed_by(probe, state, groups.permute(state, orders), image)

    return len(groups.groups), None if check else change


def torch_pruning(network: nn.Module, other: nn.Module, image: torch.Tensor) -> Found:
    """Groups of Torch-Pruning's dependency graph."""
    del other
    pruning = importlib.import_module("torch_pruning")
    graph = pruning.DependencyGraph().build_dependency(network, example_inputs=image)
    groups = graph.get_all_groups(ignored_layers=output_layers(network, image))
    return sum(len(group[0].idxs) > 1 for group in groups), None


@functools.cache
def output_layers(network: nn.Module, image: torch.Tensor) -> list[nn.Module]:
    """Layers whose channels are outputs of the network in evaluation or training, and must stay."""
    fixed = channel_groups(network, image, check=False).fixed
    still = {(f.tensor, f.axis) for f in fixed if "an output" in f.reason}
    return [
        module
        for name, module in network.named_modules()
        if (f"{name}.weight", int(isinstance(module, nn.modules.conv._ConvTransposeNd))) in still
    ]


def rebasin(network: nn.Module, other: nn.Module, image: torch.Tensor) -> Found:
    """Permutations that rebasin is free to choose."""
    permuted = copy.deepcopy(other)
    with torch.no_grad():
        descent = importlib.import_module("rebasin").PermutationCoordinateDescent(network, permuted, image)
    free = {id(p) for p, _ in descent.pinit.model_graph.permutation_to_info if len(p.perm_indices) > 1}

    def change() -> float:
        with torch.no_grad():
            descent.rebasin(max_iterations=1)
        return changed_by(other, other.state_dict(), permuted.state_dict(), image, modes=(False,))

    return len(free), change


FINDERS: dict[str, tuple[Callable[..., Found], str]] = {
    "ours": (ours, ""),
    "ours, checked": (functools.partial(ours, check=True), ""),
    "Torch-Pruning": (torch_pruning, "torch_pruning"),
    "rebasin": (rebasin, "rebasin"),
}


@dataclass(frozen=True)
class Cell:
    """What a tool finds in a network: number of groups, seconds, and what went wrong, if anything."""

    groups: int = 0
    seconds: float = float("nan")
    failure: str = ""

    def __str__(self) -> str:
        # Milliseconds, as some networks take few of them.
        found = f"{self.groups} in {1000 * self.seconds:.0f} ms" if self.groups or not self.failure else ""
        return ", ".join(filter(None, (found, self.failure)))


def cell(finder: Callable[..., Found], arguments: tuple[Any, ...], repeats: int, limit: int) -> Cell:
    """Groups, seconds, and whether the function survives."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit if finder in (torch_pruning, rebasin) else 0)
    best = float("inf")
    output_layers(arguments[0], arguments[2])  # Cached: no part of anybody's time.
    try:
        for _ in range(repeats):
            began = time.process_time()
            groups, change = finder(*arguments)
            best = min(best, time.process_time() - began)
        difference = change() if change else 0.0
    # Whatever a rival raises is its result; ours must not raise.
    except Exception as error:
        if finder not in (torch_pruning, rebasin):
            raise
        return Cell(failure=f"over {limit} s" if isinstance(error, TimeoutError) else type(error).__name__)
    finally:
        signal.alarm(0)
    return Cell(groups, best, f"CHANGED by {difference:.0e}" if difference else "")


def matching_time(network: nn.Module, other: nn.Module, image: torch.Tensor) -> str:
    """Seconds to match a network with an independent one by weights, groups given."""
    groups = channel_groups(network, image, check=False)
    anchor = {name: parameter.detach() for name, parameter in network.named_parameters()}
    source = {name: parameter.detach() for name, parameter in other.named_parameters()}
    began = time.process_time()
    found = assign_by_weights(groups, anchor, source)
    return f"{time.process_time() - began:.2f} s, cosine {found.before:.3f} to {found.after:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NETWORK")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a rival is stopped")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    finders = {n: find for n, (find, package) in FINDERS.items() if not package or importlib.util.find_spec(package)}
    print(f"{'network':22}" + "".join(f"{name:32}" for name in finders) + "matched by weights")
    ratios: dict[str, list[tuple[float, str]]] = {}
    failures: list[str] = []
    for name in arguments.only:
        construct, shape = CASES[name]
        torch.manual_seed(0)
        network, other, image = construct().eval(), construct().eval(), torch.randn(shape)
        cells = {
            tool: cell(find, (copy.deepcopy(network), other, image), arguments.repeats, arguments.limit)
            for tool, find in finders.items()
        }
        matched = matching_time(network, other, image)
        print(f"{name:22}" + "".join(f"{c!s:32}" for c in cells.values()) + matched, flush=True)
        for tool, found in cells.items():
            failures += [f"{tool}: {name}, {found.failure}"] if found.failure else []
            if tool not in ("ours", "ours, checked") and found.groups:
                ratios.setdefault(tool, []).append((cells["ours"].seconds / found.seconds, name))
                fewer = cells["ours"].groups < found.groups and not found.failure
                failures += [f"ours: {name}, fewer groups than {tool}"] if fewer else []
    for tool, times in ratios.items():
        (least, at_least), (most, at_most) = min(times), max(times)
        print(f"ours take {least:.2f} ({at_least}) to {most:.2f} ({at_most}) of the time of {tool}")
    print("\n".join(["failures:", *failures]))


if __name__ == "__main__":
    main()
