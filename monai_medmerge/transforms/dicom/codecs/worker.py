"""The child process of `codec_process`: it answers requests on standard input with pixels on standard output.

It runs as a script and imports nothing of this package, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import gdcm
import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit


def decode(request: dict[str, Any], stream: bytes) -> np.ndarray[Any, Any]:
    """Decode one frame."""
    syntax, precision = request.pop("transfer_syntax"), request.pop("precision")
    if syntax == JPEGExtended12Bit and precision == 12:
        return decode_twelve_bit_jpeg(stream, request["rows"], request["columns"])
    array, _ = get_decoder(UID(syntax)).as_array(
        encapsulate([stream]),
        decoding_plugin="gdcm",
        number_of_frames=1,
        pixel_keyword="PixelData",
        **request,
    )
    return array


def decode_twelve_bit_jpeg(stream: bytes, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Decode gray JPEG of 12 bits (process 4), which GDCM does if it is told the precision."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # GDCM hands bytes over as a string with surrogate escapes.
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "<u2").reshape(rows, columns)


def serve() -> None:
    """Answer one request after another, until the parent closes the pipe."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    warnings.simplefilter("ignore")
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        stream = requests.read(request.pop("length"))
        try:
            array = np.ascontiguousarray(decode(request, stream))
        # Whatever a codec raises about a damaged frame is answered as a refusal; the parent words the error.
        except Exception:  # noqa: BLE001
            answers.write(b'{"length": 0}\n')
        else:
            header = {"shape": array.shape, "dtype": array.dtype.str, "length": array.nbytes}
            answers.write(json.dumps(header).encode() + b"\n" + array.tobytes())
        answers.flush()


if __name__ == "__main__":
    serve()
