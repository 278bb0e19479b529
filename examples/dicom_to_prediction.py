"""From a DICOM folder to a prediction: a DICOM SEG for the PACS, and a figure for the eye.

    python examples/dicom_to_prediction.py SERIES --bundle bundles/medmerge_segmentation --codes codes.json

The bundle's configs/inference.json gives `network_def`, `preprocessing` and `inferer`; codes.json is as dcmqi has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged

from monai_medmerge.transforms import LoadDicomSegd, SaveDicomSegd


def predict(series: Path, bundle: Path, codes: Path, output: Path) -> Path:
    """Segment a series and return the DICOM SEG."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    parser["bundle_root"] = str(bundle)
    network, preprocessing, inferer = map(parser.get_parsed_content, ("network_def", "preprocessing", "inferer"))
    network.load_state_dict(torch.load(bundle / "models/model.pt", map_location="cpu", weights_only=True))
    data = preprocessing({"image": str(series), "source": str(series)})
    with torch.inference_mode():
        logits = inferer(data["image"][None].cpu(), network.cpu().eval())[0]
    data["pred"] = MetaTensor(logits.argmax(0, keepdim=True).float(), meta=data["image"].meta)
    back = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=True)
    saved = Compose([back, SaveDicomSegd("pred", output, codes)])(data)
    return Path(saved["pred"].meta["saved_to"])


def draw(series: Path, seg: Path, path: Path) -> None:
    """Draw the slice with most of the prediction, the prediction over it."""
    load = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader")
    data = LoadDicomSegd("label")(load({"image": str(series), "label": str(seg)}))
    z = int((data["label"] > 0).sum((0, 1)).argmax())
    image, label = data["image"][..., z].numpy().T, data["label"][..., z].numpy().T
    axes = (figure := Figure()).subplots()
    axes.imshow(image, cmap="gray")
    axes.imshow(label, cmap="tab10", alpha=0.5 * (label > 0), vmin=0, vmax=9)
    axes.set(title=f"slice {z + 1} of {data['image'].shape[2]}", xticks=[], yticks=[])
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("series", type=Path)
    for name, default in (("--bundle", None), ("--codes", None), ("--output", Path("predictions"))):
        arguments.add_argument(name, type=Path, default=default, required=default is None)
    given = arguments.parse_args()
    draw(given.series, seg := predict(**vars(given)), seg.with_suffix(".png"))
    print(f"wrote {seg} and {seg.with_suffix('.png')}")
