"""Windows and tables that turn modality values into brightness, and images into gray or RGB."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_medmerge.errors import DicomSeriesError, SettingError

# Centre and width in Hounsfield units, as radiology departments commonly set them.
WINDOW_PRESETS: Mapping[str, tuple[float, float]] = {
    "abdomen": (40, 400),
    "bone": (480, 2500),
    "brain": (40, 80),
    "liver": (60, 160),
    "lung": (-600, 1500),
    "mediastinum": (40, 400),
    "soft_tissue": (50, 350),
    "stroke": (32, 8),
    "subdural": (75, 215),
}
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
# ITU-R BT.601, the luma of YCbCr in DICOM.
_LUMA = (0.299, 0.587, 0.114)


def apply_window(values: Tensor, center: float, width: float, function: str = "LINEAR") -> Tensor:
    """Map values to [0, 1] through a window, as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define it.

    LINEAR is clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1), LINEAR_EXACT is clip((x - c) / w + 0.5, 0, 1) and SIGMOID
    is 1 / (1 + exp(-4 (x - c) / w)).

    Args:
        values: modality values, any shape.
        center: window centre c, in the unit of the values.
        width: window width w, in the unit of the values; at least 1 for LINEAR, above zero for the others.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Raises:
        SettingError: the width is too small, or the function is unknown.

    Example:
        >>> apply_window(torch.tensor([-160.0, 39.5, 240.0]), center=40, width=400)
        tensor([0.0000, 0.5000, 1.0000])
    """
    if function not in _FUNCTIONS:
        raise SettingError(f"one of {', '.join(_FUNCTIONS)}", repr(function), "function")
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise SettingError("a width of at least 1 for LINEAR, above zero otherwise", str(width), "width")
    values = values.to(torch.float32)
    if function == "SIGMOID":
        return torch.sigmoid(4 * (values - center) / width)
    if function == "LINEAR_EXACT":
        return ((values - center) / width + 0.5).clamp(0, 1)
    if width == 1:
        return (values > center - 0.5).to(torch.float32)
    return ((values - (center - 0.5)) / (width - 1) + 0.5).clamp(0, 1)


def apply_voi(values: Tensor, voi: Mapping[str, Any], index: int = 0, prefer_lut: bool = True) -> Tensor:
    """Map values to [0, 1] through the VOI table or window that their file holds.

    Args:
        values: modality values, any shape.
        voi: "windows", "function", "luts" and "mirror", as `DicomSeriesReader` describes them.
        index: which of several windows or tables.
        prefer_lut: whether a table goes before a window where the file has both.

    Raises:
        DicomSeriesError: the file has neither, or not as many.

    Example:
        >>> voi = {"windows": [], "function": "LINEAR", "luts": [{"first": 1, "bits": 8, "data": [0, 51, 255]}]}
        >>> apply_voi(torch.tensor([-5, 1, 2, 3, 9]), voi)
        tensor([0.0000, 0.0000, 0.2000, 1.0000, 1.0000])
    """
    windows, tables = voi.get("windows", ()), voi.get("luts", ())
    use_table = bool(tables) and (prefer_lut or not windows)
    found = tables if use_table else windows
    if not 0 <= index < len(found):
        raise DicomSeriesError("a window or table in the file", f"{len(found)}, index {index}", "VOI")
    mirror = voi.get("mirror")
    # The file describes values before MONOCHROME1 was inverted; what comes out is inverted like what came in.
    values = values if mirror is None else mirror - values
    if use_table:
        table = found[index]
        entries = torch.as_tensor(table["data"], dtype=torch.float32, device=values.device)
        places = (values.round().long() - table["first"]).clamp(0, len(entries) - 1)
        result = entries[places] / (2 ** table["bits"] - 1)
    else:
        center, width = found[index]
        result = apply_window(values, center, width, voi.get("function", "LINEAR"))
    return result if mirror is None else 1 - result


class ApplyWindowd(MapTransform):
    """Map modality values to [0, 1] through a window: a preset, one that is given, or that of the file.

    Args:
        keys: images, tensors of any shape; MetaTensors from `DicomSeriesReader` where the file's window is meant.
        preset: a name among `WINDOW_PRESETS`.
        center: window centre, together with `width`, in the unit of the values.
        width: window width.
        index: which of the file's windows or tables.
        prefer_lut: whether the file's table goes before its window.
        allow_missing_keys: skip keys that a dictionary lacks.
        name: of one of the file's windows, as WindowCenterWidthExplanation has it ("LUNG"), in place of `index`.

    Raises:
        SettingError: an unknown preset, a centre without a width, or two of preset, centre and name.
        DicomSeriesError: the file's window is meant and it has none, or none of that name.

    Example:
        >>> ApplyWindowd(keys="image", preset="brain")({"image": torch.tensor([[-40.0, 39.5, 100.0]])})["image"]
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        preset: str | None = None,
        center: float | None = None,
        width: float | None = None,
        index: int = 0,
        prefer_lut: bool = True,
        allow_missing_keys: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if name is not None and (preset is not None or center is not None):
            raise SettingError("a preset, a centre, or a name", "two of them", "ApplyWindowd")
        self.name = name
        if preset is not None and preset not in WINDOW_PRESETS:
            raise SettingError(f"one of {', '.join(WINDOW_PRESETS)}", repr(preset), "preset")
        self.window: tuple[float, float] | None = WINDOW_PRESETS[preset] if preset else None
        if (center is None) != (width is None) or (preset is not None and center is not None):
            raise SettingError("a preset, or a centre and a width, or none of them", "another mixture", "ApplyWindowd")
        if center is not None and width is not None:
            self.window = (center, width)
        self.index = index
        self.prefer_lut = prefer_lut

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images windowed."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            voi = json.loads(image.meta.get("voi", "{}")) if isinstance(image, MetaTensor) else {}
            if self.name is not None:
                names = voi.get("names", [])
                if self.name.upper() not in names:
                    known = ", ".join(sorted(set(names) - {""})) or "none with a name"
                    raise DicomSeriesError(f"a window named {self.name.upper()!r} in the file", known, "VOI")
                result[key] = apply_voi(image, voi, names.index(self.name.upper()), prefer_lut=False)
                continue
            if self.window is None:
                result[key] = apply_voi(image, voi, self.index, self.prefer_lut)
                continue
            mirror = voi.get("mirror")
            windowed = apply_window(image if mirror is None else mirror - image, *self.window)
            result[key] = windowed if mirror is None else 1 - windowed
        return result


def normalize_photometric(image: Tensor, photometric: str, channels: int = 1) -> Tensor:
    """Return an image whose high values are bright, in gray or RGB, whatever it was.

    Args:
        image: (channel, *spatial), one channel for gray and three for RGB.
        photometric: "MONOCHROME1", "MONOCHROME2" or "RGB".
        channels: 1 for gray (the luma of RGB, ITU-R BT.601), 3 for RGB (gray three times).

    Raises:
        SettingError: another number of channels is asked for, or the image's channels do not fit its kind.

    Example:
        >>> normalize_photometric(torch.tensor([[0.0, 1.0, 4.0]]), "MONOCHROME1")
        tensor([[4., 3., 0.]])
    """
    if channels not in (1, 3):
        raise SettingError("1 or 3", str(channels), "channels")
    expected = 3 if photometric == "RGB" else 1
    if image.shape[0] != expected:
        raise SettingError(f"{expected} channel(s) first for {photometric}", str(image.shape[0]), "image")
    if photometric == "RGB":
        luma = torch.tensor(_LUMA, device=image.device).view(3, *[1] * (image.ndim - 1))
        return image if channels == 3 else (image.to(torch.float32) * luma).sum(0, keepdim=True)
    if photometric == "MONOCHROME1":
        image = image.max() + image.min() - image
    return image if channels == 1 else image.repeat(3, *[1] * (image.ndim - 1))


class NormalizePhotometricd(MapTransform):
    """Make images of mixed origin alike: bright is high, and all are gray or all are RGB.

    Reads "photometric_interpretation" from the metadata, as `DicomSeriesReader` and `MedicalImageReader` put it there,
    and writes what the image then is. Values are inverted about the image's own extremes; to invert radiographs over
    their stored range, let the reader do it.

    Args:
        keys: MetaTensors, (channel, *spatial).
        channels: 1 for gray, 3 for RGB.
        allow_missing_keys: skip keys that a dictionary lacks.

    Example:
        >>> image = MetaTensor(torch.ones(3, 4, 4), meta={"photometric_interpretation": "RGB"})
        >>> NormalizePhotometricd(keys="image")({"image": image})["image"].shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, keys: KeysCollection, channels: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise SettingError("1 or 3", str(channels), "channels")
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images normalised."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            photometric = image.meta.get("photometric_interpretation")
            if photometric is None:
                raise DicomSeriesError("a photometric_interpretation in the metadata", "none", str(key))
            result[key] = MetaTensor(normalize_photometric(image, photometric, self.channels))
            meta = result[key].meta
            meta["photometric_interpretation"] = "RGB" if self.channels == 3 else "MONOCHROME2"
            if photometric == "MONOCHROME1":
                # As from the reader: the file's windows are of the values before, and what is inverted has no unit.
                voi = json.loads(meta.get("voi", "{}"))
                meta["voi"] = json.dumps({**voi, "mirror": float(image.max()) + float(image.min())})
                meta["units"] = ""
        return result
