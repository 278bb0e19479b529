"""A network in TorchScript and in ONNX, each compared with the network before it is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.bundle import ckpt_export
from monai.utils import optional_import
from torch import Tensor, nn

from monai_medmerge.bundle.configuration import explained
from monai_medmerge.errors import SettingError
from monai_medmerge.files import reserve, whole_file

onnxruntime, _ = optional_import("onnxruntime")
TOLERANCE = 1e-4
"""Of the largest answer."""


def write_torchscript(bundle: Path, network: nn.Module, example: Tensor, trace: bool = False) -> None:
    """`models/model.ts`, with metadata and inference configuration inside, as `ckpt_export` makes it.

    Args:
        bundle: folder with configs and `models/model.pt`.
        network: with the same weights, in evaluation.
        example: input to compare on, and to trace with.
        trace: record one pass instead of compiling the code, for networks that cannot be scripted.

    Raises:
        SettingError: the network cannot be scripted, or the export answers otherwise by more than `TOLERANCE`.
    """
    advice = "that torch.jit can trace" if trace else "that torch.jit can export (try --trace)"
    with whole_file(bundle / "models" / "model.ts") as part:
        # TorchScript ends the process where the disk is full.
        reserve(part, 2**20 + sum(tensor.nbytes for tensor in network.state_dict().values()))
        # Scripting compiles a network's code and tracing runs it: both can raise anything.
        with explained(f"a network {advice}", "TorchScript"):
            ckpt_export(
                net_id="network_def", filepath=str(part), ckpt_file=str(bundle / "models" / "model.pt"),
                meta_file=str(bundle / "configs" / "metadata.json"),
                config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle),
                use_trace=trace, input_shape=list(example.shape),
            )  # fmt: skip
            answer = torch.jit.load(str(part))(example)
        _compare("TorchScript", network, example, answer)


def write_onnx(path: Path, network: nn.Module, example: Tensor) -> None:
    """An ONNX file with input `image` and output `pred`, any batch size, weights inside.

    Args:
        path: the file.
        network: in evaluation.
        example: input to export and to compare with.

    Raises:
        SettingError: the network cannot be exported, the export answers otherwise by more than `TOLERANCE`, or the
            extra `export` is not installed.
    """
    check_onnx_installed()
    with whole_file(path) as part:
        with explained("a network that torch.onnx can export", "ONNX"):
            # Two images: torch takes a size of one for a constant.
            torch.onnx.export(
                network, (example.repeat(2, *[1] * (example.ndim - 1)),), str(part), input_names=["image"],
                output_names=["pred"], dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False, verbose=False,
            )  # fmt: skip
            session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
            (answer,) = session.run(None, {"image": example.numpy().astype(np.float32)})
        _compare("ONNX", network, example, torch.from_numpy(answer))


def check_onnx_installed() -> None:
    """Before long work: whether ONNX files can be written and compared.

    Raises:
        SettingError: the extra `export` is not installed.
    """
    for module in ("onnxruntime", "onnxscript"):
        if not optional_import(module)[1]:
            raise SettingError("pip install 'monai_medmerge[export]'", f"no {module}", "ONNX")


def _compare(what: str, network: nn.Module, example: Tensor, answer: Tensor) -> None:
    with torch.no_grad():
        expected = network(example)
    difference, largest = float((expected - answer).abs().max()), float(expected.abs().max())
    # Written so that NaN is a difference too.
    if not difference <= TOLERANCE * largest:
        found = f"a difference of {difference:.2e} where the largest answer is {largest:.2e}"
        raise SettingError(f"answers within {TOLERANCE} of the largest", found, what)
