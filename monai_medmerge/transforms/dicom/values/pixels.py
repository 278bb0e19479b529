"""From the bytes of a file to the stored values of its frames, gray or RGB, whatever the transfer syntax."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.codecs.process import decode_apart
from monai_medmerge.transforms.dicom.codecs.streams import check_codestream, require_codec
from monai_medmerge.transforms.dicom.headers import Header, open_dicom
from monai_medmerge.transforms.foreign import guarded

Array = NDArray[Any]

# One decoder for each transfer syntax, whatever else is installed, so that a file means the same everywhere. Both
# libraries are permissively licensed (Pillow: MIT-CMU, GDCM: BSD). pyjpegls is not used: its release 1.5.1 takes up
# to nine seconds to refuse some damaged streams of 56 bytes, GDCM milliseconds.
DECODERS = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEGLSNearLossless: "gdcm",
}
# Of JPEG 2000, which may be lossless under this syntax, and the others.
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, JPEGLSNearLossless)
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
# Of JPEG and JPEG-LS, a JPEG 2000 codestream, and a JP2 file.
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_COLOR = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file stores its pixels, checked before anything is allocated."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str

    @property
    def pixel_bytes(self) -> int:
        """The size of one decoded pixel."""
        return self.samples * max(self.allocated // 8, 1)

    @property
    def frame_bytes(self) -> int:
        """The size of one decoded frame."""
        return self.rows * self.columns * self.pixel_bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of stored values."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def stored_range(self) -> tuple[int, int]:
        """The least and the greatest value that BitsStored can hold."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)


def read_layout(header: Header, max_bytes: int) -> Layout:
    """Read and check what describes the pixels.

    Raises:
        DicomSeriesError: something is missing, contradictory, not supported, or more than `max_bytes` in all.
    """
    photometric = header.text("PhotometricInterpretation").upper()
    if photometric not in _GRAY + _COLOR:
        expected = f"one of {', '.join(_GRAY + _COLOR)}"
        raise DicomSeriesError(expected, "another or none", f"{header.where}, PhotometricInterpretation")
    layout = Layout(
        header.integer("Rows"),
        header.integer("Columns"),
        header.frames,
        header.integer("SamplesPerPixel", 1),
        header.integer("BitsAllocated"),
        header.integer("BitsStored", header.integer("BitsAllocated")),
        header.integer("PixelRepresentation", 0) == 1,
        photometric,
    )
    if min(layout.rows, layout.columns, layout.frames) < 1:
        raise DicomSeriesError("Rows, Columns and NumberOfFrames above zero", "zero", header.where)
    if layout.samples != (3 if photometric in _COLOR[1:] else 1):
        found = f"{layout.samples} with {photometric}"
        raise DicomSeriesError("one sample per pixel for gray and palette, three for colour", found, header.where)
    if layout.allocated not in (8, 16, 32, 64) or not 1 <= layout.stored <= layout.allocated:
        found = f"{layout.stored} of {layout.allocated}"
        raise DicomSeriesError("8, 16, 32 or 64 bits allocated and at most as many stored", found, header.where)
    high_bit = header.integer("HighBit", layout.stored - 1)
    if high_bit != layout.stored - 1:
        found = f"BitsStored {layout.stored}, HighBit {high_bit}"
        raise DicomSeriesError("the highest bit to be BitsStored - 1", found, header.where)
    if (total := layout.frame_bytes * layout.frames) > max_bytes:
        raise DicomSeriesError(f"at most {max_bytes} bytes (max_bytes)", str(total), header.where)
    if layout.frames > (size := header.path.stat().st_size):
        raise DicomSeriesError("a byte for each frame at least", f"{layout.frames} in {size} bytes", header.where)
    return layout


def require_frames(dataset: Dataset, header: Header) -> None:
    """Refuse compressed pixel data of another number of frames than the header says.

    Args:
        dataset: with compressed Pixel Data.
        header: its header.

    Raises:
        DicomSeriesError: there are more frames, or fewer.
    """
    data = BytesIO(dataset.PixelData)
    parse_basic_offsets(data)
    fragments = list(generate_fragments(data))
    # A frame of RLE is one fragment (PS3.5 A.4.2); of others it may be several, of which the first has the start.
    if header.transfer_syntax != RLELossless:
        fragments = [fragment for fragment in fragments if fragment.startswith(_FRAME_STARTS)]
    if fragments and len(fragments) != header.frames:
        found = f"Pixel Data for {len(fragments)}"
        raise DicomSeriesError(f"{header.frames} frame(s) as NumberOfFrames says", found, header.where)


class FrameSource:
    """Decodes the frames of one file.

    Args:
        header: the file's header.
        layout: its layout.
    """

    def __init__(self, header: Header, layout: Layout) -> None:
        self.header = header
        self.layout = layout
        self._dataset: Dataset | None = None
        self._native_offset = self._find_native()
        self._last: tuple[int, Array] | None = None

    def decode(self, index: int) -> Array:
        """Return a frame's stored values, (rows, columns) or (rows, columns, 3) in RGB.

        Raises:
            DicomSeriesError: the pixel data is short, damaged, or in a syntax that is not supported.
        """
        if self.is_native:
            frame = np.empty((self.layout.rows, self.layout.columns), self.layout.dtype)
            self.read_into(index, frame)
            return frame
        # The slices of a mosaic are asked for one by one.
        if self._last is None or self._last[0] != index:
            self._last = index, self._decode_checked(index)
        return self._last[1]

    @property
    def is_native(self) -> bool:
        """Whether frames are uncompressed, gray and little-endian, so that `read_into` takes them as they are."""
        return self._native_offset is not None

    def _decode_checked(self, index: int) -> Array:
        """Decode one frame and compare it with the header."""
        frame = guarded(DicomSeriesError, "pixel data", self.header.where, lambda: self._decode(index))
        if frame.shape[:2] != (self.layout.rows, self.layout.columns):
            found = "x".join(map(str, frame.shape))
            raise DicomSeriesError(f"{self.layout.rows}x{self.layout.columns} pixels", found, self.header.where)
        low, high = self.layout.stored_range
        if frame.ndim == 2 and frame.dtype.kind in "iu" and not low <= frame.min() <= frame.max() <= high:
            # Lossy compression overshoots at edges.
            slack = (high - low + 1) // 8 if self.header.transfer_syntax in _LOSSY else 0
            if low - slack <= frame.min() and frame.max() <= high + slack:
                return np.clip(frame, low, high)
            found = f"values from {frame.min()} to {frame.max()}"
            raise DicomSeriesError(f"values of {self.layout.stored} bits (BitsStored)", found, self.header.where)
        return frame

    def _find_native(self) -> int | None:
        """Return where little-endian, uncompressed gray values start in the file; None for all other kinds."""
        layout, header = self.layout, self.header
        if header.pixel_offset is None or layout.photometric not in _GRAY or layout.allocated > 32:
            return None
        explicit = header.transfer_syntax == ExplicitVRLittleEndian
        if not explicit and header.transfer_syntax != ImplicitVRLittleEndian:
            return None
        with header.path.open("rb") as file:
            file.seek(header.pixel_offset)
            element = file.read(12)
            size = file.seek(0, 2)
        if element[:4] != b"\xe0\x7f\x10\x00" or (explicit and element[4:6] not in (b"OW", b"OB")):
            return None
        start = 12 if explicit else 8
        length = int.from_bytes(element[start - 4 : start], "little")
        needed = layout.frame_bytes * layout.frames
        if length == 0xFFFFFFFF:
            return None
        if length < needed or header.pixel_offset + start + needed > size:
            found = f"{min(length, size - header.pixel_offset - start)}"
            raise DicomSeriesError(f"{needed} bytes of Pixel Data", found, header.where)
        if length >= needed + layout.frame_bytes:
            found = f"Pixel Data for {length // layout.frame_bytes}"
            raise DicomSeriesError(f"{layout.frames} frame(s) as NumberOfFrames says", found, header.where)
        return header.pixel_offset + start

    def read_into(self, index: int, out: Array) -> None:
        """Read a frame of a native file into an array of its shape and type, contiguous in memory.

        Raises:
            DicomSeriesError: the file is too short.
        """
        layout = self.layout
        with self.header.path.open("rb", buffering=0) as file:
            file.seek((self._native_offset or 0) + index * layout.frame_bytes)
            got = file.readinto(out.data.cast("B"))
        if got != layout.frame_bytes:
            raise DicomSeriesError(f"{layout.frame_bytes} bytes", str(got), f"{self.header.where}, frame {index + 1}")
        # Old files keep overlays in the unused bits; the sign bit is the highest stored one.
        unused = layout.allocated - layout.stored
        if unused and layout.signed:
            np.left_shift(out, unused, out=out)
            np.right_shift(out, unused, out=out)
        elif unused:
            np.bitwise_and(out, out.dtype.type(2**layout.stored - 1), out=out)

    def _load(self) -> Dataset:
        """Read the file with its pixel data once, and check the data's size before it is decoded."""
        if self._dataset is None:
            with open_dicom(self.header.path) as file:
                self._dataset = pydicom.dcmread(file)
            self._require_pixels(self._dataset)
        return self._dataset

    def _require_pixels(self, dataset: Dataset) -> None:
        where, layout = self.header.where, self.layout
        found = [word for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if word in dataset]
        if len(found) != 1:
            raise DicomSeriesError("one element of pixel data", f"{len(found)}", where)
        if not self.header.transfer_syntax:
            raise DicomSeriesError("a transfer syntax", "none", f"{where}, TransferSyntaxUID")
        if self.header.transfer_syntax in _NATIVE:
            if len(dataset[found[0]].value) >= layout.frame_bytes * (layout.frames + 1):
                raise DicomSeriesError(f"{layout.frames} frame(s) as NumberOfFrames says", "Pixel Data for more", where)
            return
        # First: pydicom takes syntaxes that it does not know for no syntaxes at all.
        plugin = DECODERS.get(pydicom.uid.UID(self.header.transfer_syntax))
        require_codec(plugin, self.header.transfer_syntax, where)
        require_frames(dataset, self.header)
        if self.header.transfer_syntax == RLELossless:
            # Two bytes of RLE expand to 128 at most.
            limit = 64 * len(dataset.PixelData)
            if (needed := layout.frame_bytes * layout.frames) > limit:
                raise DicomSeriesError(f"RLE data for {needed} bytes", f"at most {limit}", where)

    def _decode(self, index: int) -> Array:
        dataset, layout, where = self._load(), self.layout, f"{self.header.where}, frame {index + 1}"
        syntax = pydicom.uid.UID(self.header.transfer_syntax)
        plugin = DECODERS.get(syntax, "")
        if syntax in DECODERS and syntax != RLELossless:
            stream = get_frame(dataset.PixelData, index, number_of_frames=layout.frames)
            precision = check_codestream(stream, layout.rows, layout.columns, layout.samples, where)
            if syntax == JPEGExtended12Bit and precision == 12 and layout.samples == 1:
                plugin = "gdcm"
            if plugin == "gdcm":
                return self._decode_apart(stream, precision, where)
        frame = pixel_array(dataset, index=index, decoding_plugin=plugin)
        if layout.photometric == "PALETTE COLOR":
            return apply_color_lut(frame, dataset)
        return frame.astype(frame.dtype.newbyteorder("="), copy=False)

    def _decode_apart(self, stream: bytes, precision: int, where: str) -> Array:
        layout = self.layout
        description = {
            "transfer_syntax": self.header.transfer_syntax,
            "precision": precision,
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": layout.samples,
            "photometric_interpretation": layout.photometric,
            "bits_allocated": layout.allocated,
            "bits_stored": layout.stored,
            "pixel_representation": int(layout.signed),
            "planar_configuration": self.header.integer("PlanarConfiguration", 0),
        }
        frame = decode_apart(stream, description, where)
        return apply_color_lut(frame, self._load()) if layout.photometric == "PALETTE COLOR" else frame
