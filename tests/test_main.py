"""The command line: its answers and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet121

from monai_medmerge.__main__ import main

DENSENET = "DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plan")
    for name, channels in [("grey", 1), ("rgb", 3)]:
        torch.save(DenseNet121(2, channels, 5).state_dict(), folder / f"{name}.pt")
    (folder / "train.json").write_text(
        json.dumps(
            {
                "channels": 1,
                "net": {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": "@channels", "out_channels": 3},
            }
        )
    )
    return {path.stem: str(path) for path in folder.iterdir()}


def test_exit_status_says_whether_it_fits(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    sources = ["--source", files["grey"], "--source", files["rgb"]]
    assert main(["plan", "--network", DENSENET, *sources[:2]]) == 0
    assert "verdict: fits" in capsys.readouterr().out
    assert main(["plan", "--network", DENSENET, *sources]) == 1
    assert "features.conv0.weight is 64 x 3 x 7 x 7, the network's 64 x 1 x 7 x 7" in capsys.readouterr().out
    assert main(["plan", "--network", DENSENET, *sources, "--adapt"]) == 0
    assert "3 input channels to 1, summed" in capsys.readouterr().out


def test_json_and_configurations(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--network", f"{files['train']}::net", "--source", files["grey"], "--json"]
    assert main(arguments) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["compatible"]
    assert content["cost"]["coefficients"] > 10_000
    assert len(content["tensors"]) == len(DenseNet121(2, 1, 3).state_dict())


def test_it_answers_in_seconds(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    start = time.process_time()
    main(["plan", "--network", DENSENET, "--source", files["grey"], "--source", files["rgb"], "--adapt"])
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "network",
    ["absent.json", "Foo()", "DenseNet121(spatial_dims=2)", "DenseNet121(__import__('os'))", "os.getcwd()", "("],
)
def test_wrong_use_is_one_line_and_two(network: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--network", network, "--source", files["grey"]]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("image", ["1,x", "1", "1,0", "1,-2", ""])
def test_an_image_without_sizes_is_wrong_use(
    image: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--network", DENSENET, "--source", files["grey"], "--align", "weights", "--image", image])
    assert caught.value.code == 2
    assert "such as 1,64,64" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line_and_two(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    (tmp_path / "net.json").write_text(json.dumps({"network_def": network}))
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), tmp_path / "model.pt")
    command = ["export", "--network", str(tmp_path / "net.json"), "--weights", str(tmp_path / "model.pt")]
    command += ["--task", "segmentation", "--spatial-shape", "8", "8", "--no-onnx", "--no-torchscript"]
    command += ["--activation", "softmax", "--preprocessing", "generic"]
    assert main([*command, "--output", str(tmp_path / "model.pt" / "bundle")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: bundle")
    assert str(tmp_path) not in error
    assert len(error.strip().splitlines()) == 1


def test_as_a_process(files: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "monai_medmerge", "plan"]
    wrong = [*command, "--network", DENSENET, "--source", str(tmp_path / "absent.pt")]
    absent = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert (absent.returncode, "absent.pt" in absent.stderr, "Traceback" in absent.stderr) == (2, True, False)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
