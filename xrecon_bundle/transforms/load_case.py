"""Load a case's files, and say which one cannot be read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform
from torch import Tensor

from ..files import InputError


class LoadCased(MapTransform):
    """MONAI's ``LoadImaged`` with one clear error: a training reads thousands of files, and one is missing or cut off.

    Args:
        keys: paths of image files; each becomes a ``MetaTensor``.
        allow_missing_keys: a case may lack some of the keys.

    Raises:
        InputError: a file is missing or cannot be read.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadImage(image_only=True)

    def __call__(self, data: Mapping[Hashable, str]) -> dict[Hashable, str | Tensor]:
        """The case with the images in place of their paths."""
        case: dict[Hashable, str | Tensor] = {**data}
        for key in self.key_iterator(case):
            try:
                case[key] = self.load(data[key])
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"{data[key]}: cannot be read ({reason}); make this case again with `xrecon prepare`, or delete "
                    "its folder"
                ) from error
        return case
