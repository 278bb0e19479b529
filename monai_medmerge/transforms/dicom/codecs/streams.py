"""What compressed frames say about themselves, compared with the DICOM header before any codec sees them.

A native codec believes the codestream, not the header around it: a damaged size makes it allocate, run for minutes or
return pixels of another shape. So sizes are compared first, and a frame that disagrees is refused.
"""

from __future__ import annotations

from importlib.util import find_spec

from monai_medmerge.errors import DicomSeriesError

# Start of frame markers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87); C4, C8 and CC are no frames.
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
_MAX_TILES = 4096


def require_codec(plugin: str | None, syntax: str, where: str) -> None:
    """Refuse a compressed transfer syntax that no decoder here serves.

    Args:
        plugin: the decoder's name among pydicom's, None where there is none.
        syntax: the transfer syntax UID.
        where: the file's base name.

    Raises:
        DicomSeriesError: the syntax is not supported, or its decoder is not installed.
    """
    if plugin is None:
        raise DicomSeriesError("a transfer syntax that is supported (see docs/dicom.md)", syntax, where)
    if plugin == "gdcm" and find_spec("gdcm") is None:
        found = f"transfer syntax {syntax} without its decoder: pip install monai_medmerge[dicom]"
        raise DicomSeriesError("an installed decoder", found, where)


def check_codestream(stream: bytes, rows: int, columns: int, samples: int, where: str) -> int:
    """Compare a JPEG, JPEG-LS or JPEG 2000 codestream with the header around it.

    Args:
        stream: one compressed frame.
        rows: Rows, (0028,0010).
        columns: Columns, (0028,0011).
        samples: SamplesPerPixel, (0028,0002).
        where: the file's base name and frame.

    Returns:
        The codestream's bits per sample.

    Raises:
        DicomSeriesError: the stream is damaged or of another size.
    """
    found = _read_sof(stream) if stream[:2] == b"\xff\xd8" else _read_siz(stream[_skip_boxes(stream) :])
    if found is None:
        raise DicomSeriesError("a JPEG, JPEG-LS or JPEG 2000 codestream", "none or a damaged one", where)
    precision, height, width, components = found
    if (height, width, components) != (rows, columns, samples):
        size = f"{width}x{height}x{components} in the codestream"
        raise DicomSeriesError(f"{columns}x{rows}x{samples} as in the header", size, where)
    return precision


def _read_sof(stream: bytes) -> tuple[int, int, int, int] | None:
    """Return (precision, height, width, components) of a JPEG's start of frame."""
    at = 2
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _SOF:
            height, width = (
                int.from_bytes(stream[at + 5 : at + 7], "big"),
                int.from_bytes(stream[at + 7 : at + 9], "big"),
            )
            return stream[at + 4], height, width, stream[at + 9]
        # Fill bytes and markers without a length (T.81, B.1.1.2 and B.1.1.3) advance by less than a segment.
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + max(int.from_bytes(stream[at + 2 : at + 4], "big"), 2)
    return None


def _skip_boxes(stream: bytes) -> int:
    """Return where the codestream starts, behind the boxes of a JP2 file that some writers leave around it.

    A box that is too short to hold its own header ends the search: pydicom 3.0.2 walks in a circle on it.
    """
    at = 0
    if not stream.startswith(_JP2_START):
        return at
    while at + 8 <= len(stream):
        length = int.from_bytes(stream[at : at + 4], "big")
        if stream[at + 4 : at + 8] == b"jp2c":
            return at + 8
        if length < 8:
            break
        at += length
    return len(stream)


def _read_siz(stream: bytes) -> tuple[int, int, int, int] | None:
    """Return (precision, height, width, components) of a JPEG 2000 codestream's SIZ segment (T.800, A.5.1)."""
    if len(stream) < 43 or not stream.startswith(_J2K_START):
        return None
    x, y, x0, y0, tile_x, tile_y = (int.from_bytes(stream[8 + 4 * i : 12 + 4 * i], "big") for i in range(6))
    components = int.from_bytes(stream[40:42], "big")
    if not tile_x or not tile_y or -(-x // tile_x) * -(-y // tile_y) > _MAX_TILES:
        return None
    return (stream[42] & 0x7F) + 1, y - y0, x - x0, components
