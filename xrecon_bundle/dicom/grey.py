"""The grey values of a DICOM radiograph as a viewer shows them: modality table or rescale, then VOI table or window.

Tables and windows act on single pixels, so they are computed once for each stored value (PS3.3 C.11).
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

FEWEST_GREY_LEVELS = 16
SAMPLE = 100_000  # pixels that are looked at where all need not be
_ROWS = 64


def dense_is_bright(stored: np.ndarray, dataset: Dataset, doubts: list[str]) -> np.ndarray:
    """Grey values ``(rows, columns)`` float32, dense is bright, of the stored values of a grey image.

    Args:
        stored: as :func:`.pixels.stored_pixels` gives them.
        dataset: their header. Tags that are present but empty count as missing.
        doubts: receives what is not believed: a window in which nothing is seen, an inversion that tags contradict.

    Raises:
        ValueError: a table, window or rescale is damaged.
    """
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        lowest = int(stored.min())
        values = np.arange(lowest, int(stored.max()) + 1)
        index = np.subtract(stored, stored.dtype.type(lowest)).view(f"u{stored.dtype.itemsize}")  # modulo: no overflow
    else:
        values, index = np.unique(stored, return_inverse=True)
    some = index.ravel()[:: max(1, index.size // SAMPLE)]
    grey = _modality(values.astype(np.float64), dataset)
    shown = _voi(grey, dataset)
    if _levels(shown[some]) < FEWEST_GREY_LEVELS <= _levels(grey[some]):
        doubts.append("the window or VOI table shows next to nothing of the image: not believed")
        shown = grey
    negative = {
        "PhotometricInterpretation": dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        "PresentationLUTShape": dataset.get("PresentationLUTShape") == "INVERSE",
    }
    if any(negative.values()):
        shown = shown.max() - shown
        if dataset.get("PresentationLUTShape") and not all(negative.values()):
            doubts.append(
                f"PhotometricInterpretation is {dataset.PhotometricInterpretation}, PresentationLUTShape "
                f"{dataset.PresentationLUTShape}: taken as dense is dark; if it is not, set invert"
            )
    return _look_up_each(shown.astype(np.float32), index)


def padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Where ``stored`` is PixelPaddingValue, or in the range up to PixelPaddingRangeLimit; None: nowhere."""
    first = _number(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = _number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    if stored.dtype.kind in "iu" and first == high == low:  # written into the whole cell, whatever BitsStored says
        bits = int(dataset.BitsStored)
        if not -(1 << bits - 1) <= first < 1 << bits:
            low = high = int(first) & ((1 << bits) - 1)
    found = (stored >= low) & (stored <= high)
    return found if found.any() else None


def _look_up_each(levels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``levels[index]``, some rows at a time: NumPy makes 64-bit numbers of the whole index."""
    result = np.empty(index.shape, dtype=levels.dtype)
    for start in range(0, len(index), _ROWS):
        rows = slice(start, start + _ROWS)
        result[rows] = levels[index[rows]]
    return result


def _levels(grey: np.ndarray) -> int:
    return len(np.unique(grey))


def _modality(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    tables = dataset.get("ModalityLUTSequence")
    if tables:
        return _look_up(values, tables[0], dataset)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if slope == 0:
        raise ValueError("RescaleSlope is 0")
    return values * (1 if slope is None else slope) + (intercept or 0)


def _voi(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """PS3.3 C.11.2; of several tables or windows the first, a table before a window. A window's grey is 0 to 1."""
    tables = dataset.get("VOILUTSequence")
    if tables:
        return _look_up(values, tables[0], dataset)
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if centre is None or width is None:
        return values
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"WindowWidth is {width:g}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise ValueError(f"VOILUTFunction is '{function}'")
    if width == 1:
        return (values > centre - 0.5).astype(values.dtype)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _look_up(values: np.ndarray, table: Dataset, dataset: Dataset) -> np.ndarray:
    """PS3.3 C.11.1.1: below the first and beyond the last entry its end goes on."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    count = count & 0xFFFF or 65536
    if first >= 32768 and values.min() < 0:
        first -= 65536  # read as unsigned, since the VR depends on PixelRepresentation
    entries = _entries(table.LUTData, count, bits, _is_big_endian(dataset))
    return entries[np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)].astype(np.float64)


def _entries(data: bytes | int | list[int], count: int, bits: int, big_endian: bool) -> np.ndarray:
    """A table's entries: a word each, or, of 8 bits, packed two a word, the first in the low byte."""
    if isinstance(data, (bytes, bytearray)):
        words = np.frombuffer(data[: len(data) // 2 * 2], ">u2" if big_endian else "<u2").astype("<u2")
        if len(data) % 2:
            words = np.append(words, np.array(data[-1], "<u2"))
    else:
        words = np.atleast_1d(np.asarray(data)).astype("<u2")
    if len(words) >= count:
        return words[:count]
    if bits <= 8 and 2 * len(words) >= count:
        return words.view(np.uint8)[:count]
    raise ValueError(f"a look-up table of {count} entries has data for {len(words)}")


def _is_big_endian(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is False


def _number(dataset: Dataset, name: str) -> float | None:
    """The first value of a tag; None where it is missing or empty."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        value = next(iter(value), None)
        if value is None or value == "":
            return None
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{name} is {value}")
    return number
