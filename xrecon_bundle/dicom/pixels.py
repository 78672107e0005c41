"""The stored pixel values of a DICOM image, of a CT slice and of a radiograph alike, whatever compresses them.

pydicom reads the file, imagecodecs (libjpeg-turbo, CharLS, OpenJPEG) decompresses as a plugin of pydicom. Both
leave the numbers alone. ITK's reader does not: it inverts MONOCHROME1 and applies the rescale.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from ..files import InputError

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

# pydicom 3 and imagecodecs are imported where they are used: MONAI Label keeps to pydicom 2 and NumPy 1.
PLUGIN = "imagecodecs"
OVERSHOOT = 1 / 16  # of the value range: so far a lossy codec may leave it

_LOCK = threading.Lock()  # pydicom's registration of plugins is not thread-safe


def stored_pixels(dataset: Dataset) -> np.ndarray:
    """The pixel values as they are stored: no inversion, no rescale, no look-up table, no window.

    Bits outside BitsStored (overlays, rubbish) are dropped, and PixelRepresentation decides on the sign, whatever the
    compressed stream says. Read are all syntaxes of uncompressed pixels (little and big endian, deflated) and RLE, JPEG
    baseline, extended (8 and 12 bit) and lossless, JPEG-LS, JPEG 2000 and HTJ2K, lossless and lossy.

    Args:
        dataset: as `pydicom.dcmread` gives it, with its pixels.

    Returns:
        ``(rows, columns)``, with ``frames`` in front if there are several and ``samples`` at the end if there are three
        (RGB: YBR is converted, planes are interleaved; PALETTE COLOR: the indices). Integers in native byte order,
        writeable; floats for FloatPixelData.

    Raises:
        InputError: there are no pixels, tags that describe them are missing or damaged, or they cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on padding, on precisions that differ ...
            return _decode(dataset)
    except Exception as error:  # tags are parsed when they are asked for, and decoders raise about anything
        reason = " ".join(str(error).split()) or type(error).__name__
        name = getattr(dataset, "filename", None)
        raise InputError(
            f"{f'{name}: ' if name else ''}the DICOM file cannot be read ({reason}); export it again, uncompressed"
        ) from error


def _decode(dataset: Dataset) -> np.ndarray:
    from pydicom.pixels import get_decoder

    syntax = _transfer_syntax(dataset)
    decoder = get_decoder(syntax)
    with _LOCK:
        if syntax in _codecs() and PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
    options: dict[str, Any] = dict(allow_excess_frames=False, correct_unused_bits=False)  # as _significant does better
    plugin = PLUGIN if syntax in _codecs() else ""
    stored, properties = decoder.as_array(dataset, decoding_plugin=plugin, **options)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    converted = properties["photometric_interpretation"] != dataset.PhotometricInterpretation  # from YBR, just now
    return stored if converted or stored.dtype.kind not in "iu" else _significant(stored, dataset, syntax)


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax:
        return uid.UID(syntax)
    implicit, little = dataset.original_encoding  # a file without meta information: what pydicom found
    if implicit is None or dataset["PixelData"].is_undefined_length:
        raise ValueError("the file does not say how its pixels are compressed")
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _significant(stored: np.ndarray, dataset: Dataset, syntax: uid.UID) -> np.ndarray:
    """``stored`` without the bits outside BitsStored, and with the sign of the highest bit inside."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    container = 8 * stored.dtype.itemsize
    high = int(dataset.get("HighBit") or bits - 1)
    if not syntax.is_encapsulated and bits <= high < container:
        stored >>= high + 1 - bits  # images before DICOM kept 12 bits at the top of 16
    if bits >= container:
        return stored
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K):
        _clip_overshoot(stored, bits, signed)
    stored = stored.view(f"{'i' if signed else 'u'}{stored.dtype.itemsize}")
    stored <<= container - bits
    stored >>= container - bits
    return stored


def _clip_overshoot(stored: np.ndarray, bits: int, signed: bool) -> None:
    """Clip what lies just outside the range: masked, the brightest pixel of a lossy image would become the darkest."""
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    margin = int((highest - lowest) * OVERSHOOT) + 1
    container = np.iinfo(stored.dtype)
    stored[(stored > highest) & (stored <= min(highest + margin, container.max))] = highest
    if lowest > container.min:
        stored[(stored < lowest) & (stored >= max(lowest - margin, container.min))] = lowest


# --- the plugin of pydicom -----------------------------------------------------------------------------------------


@functools.cache
def _codecs() -> dict[str, Callable[..., np.ndarray]]:
    """What decompresses a frame into an array, by transfer syntax."""
    import imagecodecs

    def jpeg(source: bytes, out: np.ndarray) -> np.ndarray:
        space = None if out.ndim == 2 else "YCBCR"  # no guess at the colours: the tags say what they are
        return imagecodecs.jpeg8_decode(source, colorspace=space, outcolorspace=space, out=out)

    codecs: dict[str, Callable[..., np.ndarray]] = {}
    codecs |= dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), jpeg)
    codecs |= dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), imagecodecs.jpegls_decode)
    # OpenJPEG decodes HTJ2K as well; imagecodecs' OpenJPH wraps around what overshoots a full range.
    openjpeg = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
    codecs |= dict.fromkeys(openjpeg, imagecodecs.jpeg2k_decode)
    return codecs


def is_available(syntax: str) -> bool:
    """Whether :func:`decode_frame` decompresses the transfer syntax; pydicom asks this of a plugin."""
    return syntax in _codecs()


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame, decompressed, with its colours by pixel: a decoding plugin of pydicom."""
    shape: tuple[int, ...] = (runner.rows, runner.columns)
    if runner.samples_per_pixel > 1:
        shape = (*shape, runner.samples_per_pixel)
        runner.set_option("planar_configuration", 0)
    # An array of the expected size, so that a damaged stream cannot ask for all the memory there is.
    for bytes_allocated in (2, 1, 4):
        try:
            frame = _codecs()[runner.transfer_syntax](source, out=np.empty(shape, f"u{bytes_allocated}"))
            break
        except ValueError:  # the stream is of another type or size
            continue
    else:
        raise ValueError(f"the compressed image is not of {' x '.join(map(str, shape))} pixels")
    runner.set_option("bits_allocated", 8 * bytes_allocated)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return frame.tobytes()
