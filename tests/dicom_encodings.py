"""One DICOM image in every transfer syntax that archives send."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate


class Encoding(NamedTuple):
    syntax: uid.UID
    frame: Callable[[np.ndarray, int], bytes] | None = None  # of stored values and bits; None: pydicom writes it
    error: float = 0.0  # largest difference, of the value range
    bits: tuple[int, ...] = (8, 10, 12, 16)
    signed: tuple[bool, ...] = (False, True)


def unsigned(stored: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement in ``bits`` bits, as JPEG, which knows no sign, has to carry it."""
    return (stored.astype(np.int64) & ((1 << bits) - 1)).astype(f"u{stored.dtype.itemsize}")


def jpeg_lossless(predictor: int) -> Callable[[np.ndarray, int], bytes]:
    return lambda stored, bits: imagecodecs.jpeg8_encode(
        unsigned(stored, bits), lossless=True, predictor=predictor, bitspersample=bits
    )


def jpeg(stored: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg8_encode(unsigned(stored, bits), 98, bitspersample=bits)


def j2k(reversible: bool) -> Callable[[np.ndarray, int], bytes]:
    return lambda stored, bits: imagecodecs.jpeg2k_encode(
        stored, 0 if reversible else 70, reversible=reversible, codecformat="j2k", bitspersample=bits
    )


def htj2k(reversible: bool) -> Callable[[np.ndarray, int], bytes]:
    return lambda stored, bits: imagecodecs.htj2k_encode(stored, None if reversible else 1e-4, reversible=reversible)


ENCODINGS = {
    "implicit little endian": Encoding(uid.ImplicitVRLittleEndian),
    "explicit little endian": Encoding(uid.ExplicitVRLittleEndian),
    "explicit big endian": Encoding(uid.ExplicitVRBigEndian),
    "deflated": Encoding(uid.DeflatedExplicitVRLittleEndian),
    "RLE": Encoding(uid.RLELossless),
    "JPEG baseline": Encoding(uid.JPEGBaseline8Bit, jpeg, 0.02, (8,), (False,)),
    "JPEG extended": Encoding(uid.JPEGExtended12Bit, jpeg, 0.02, (8, 12), (False,)),
    "JPEG lossless": Encoding(uid.JPEGLossless, jpeg_lossless(6)),
    "JPEG lossless SV1": Encoding(uid.JPEGLosslessSV1, jpeg_lossless(1)),
    "JPEG-LS": Encoding(uid.JPEGLSLossless),
    "JPEG-LS near-lossless": Encoding(uid.JPEGLSNearLossless, error=0.02, signed=(False,)),
    "JPEG 2000 lossless": Encoding(uid.JPEG2000Lossless, j2k(True)),
    "JPEG 2000": Encoding(uid.JPEG2000, j2k(False), 0.02),
    "HTJ2K lossless": Encoding(uid.HTJ2KLossless, htj2k(True)),
    "HTJ2K RPCL": Encoding(uid.HTJ2KLosslessRPCL, htj2k(True)),
    "HTJ2K": Encoding(uid.HTJ2K, htj2k(False), 0.02),
}


def encoded(dataset: Dataset, name: str) -> Dataset:
    """A copy of an uncompressed, explicit little endian ``dataset``, encoded; write it with ``save_as``."""
    encoding, result = ENCODINGS[name], deepcopy(dataset)
    syntax = encoding.syntax
    if encoding.frame is not None:
        stored = pydicom.pixels.pixel_array(dataset, raw=True)
        single = int(dataset.get("NumberOfFrames") or 1) == 1
        frames = [encoding.frame(frame, int(dataset.BitsStored)) for frame in (stored[None] if single else stored)]
        result.PixelData = encapsulate(frames)
        result["PixelData"].VR = "OB"
        result["PixelData"].is_undefined_length = True
    elif syntax == uid.JPEGLSNearLossless:
        result.compress(syntax, jls_error=2, generate_instance_uid=False)
    elif syntax.is_encapsulated:
        result.compress(syntax, generate_instance_uid=False)
    elif syntax == uid.ExplicitVRBigEndian:
        dtype = f"u{int(dataset.BitsAllocated) // 8}"
        result.PixelData = np.frombuffer(dataset.PixelData, f"<{dtype}").astype(f">{dtype}").tobytes()
        for element in result.iterall():  # which decodes it
            if element.keyword == "LUTData" and isinstance(element.value, bytes):
                element.value = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()
        result.set_original_encoding(False, False)
    result.file_meta.TransferSyntaxUID = syntax
    return result
