"""The input gate: silent about good pairs in many looks, loud about each fault."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from skimage import data as photographs
from skimage.transform import resize

from xrecon_bundle import frame
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.placement.resample import resample_to_detector
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.projection.radiographs import detect_radiographs, simulate_radiographs
from xrecon_bundle.quality import check_radiographs
from xrecon_bundle.quality.input_gate import average_chest, basin_share, likenesses

SIZE = 64


def radiographs(hu: np.ndarray) -> np.ndarray:
    return simulate_radiographs(torch.from_numpy(hu.astype(np.float32))).numpy()


@pytest.fixture(scope="module")
def pairs(lidc) -> dict[str, np.ndarray]:
    ct = nibabel.load(lidc[0])
    real = standardize_ct(np.asarray(ct.dataobj), ct.affine, SIZE).ct
    return {"LIDC": radiographs(real), "synthetic": radiographs(synthesize_thorax(3, SIZE).ct)}


def displayed(pair: np.ndarray) -> np.ndarray:
    detected = detect_radiographs(torch.from_numpy(pair), 20000, 0.3, 0.5, np.random.default_rng(0))
    return torch.sigmoid(3 * (detected - 2)).numpy()


def cut(view: np.ndarray, kept: tuple[slice, slice]) -> np.ndarray:
    """What the loader makes of a picture without a scale of which only a part is there."""
    rest = np.ascontiguousarray(view[kept])
    return resample_to_detector(rest, np.full(2, frame.detector_size_mm() / max(rest.shape)), len(view))


LOOKS = {
    "simulated": lambda pair: pair,
    "as displayed": displayed,
    "photographed": lambda pair: pair * 40 + 7,
    "15 mm off the centre": lambda pair: np.roll(pair, (2, 2), (1, 2)),
    "finer": lambda pair: resize(pair, (2, 200, 200), order=1),
}


@pytest.mark.parametrize("look", LOOKS)
def test_good_pairs_pass_in_silence(look, pairs) -> None:
    for pair in pairs.values():
        result = check_radiographs(LOOKS[look](pair))
        assert result.warnings == result.refusals == []
        assert result.measures["pa"]["best"] == "pa"


def spoil(view: int, change):
    def spoiled(pair: np.ndarray) -> np.ndarray:
        return np.stack([change(picture) if index == view else picture for index, picture in enumerate(pair)])

    return spoiled


FAULTS = {
    "exchanged": (lambda pair: pair[::-1], ["PA view looks like a lateral", "lateral view looks like a PA"]),
    "two PAs": (lambda pair: pair[[0, 0]], ["lateral view looks like a PA"]),
    "negative PA": (spoil(0, lambda v: v.max() - v), ["PA view looks like a negative"]),
    "negative lateral": (spoil(1, lambda v: v.max() - v), ["lateral view looks like a negative"]),
    "PA on its side": (spoil(0, np.rot90), ["PA view looks turned on its side"]),
    "lateral on its side": (spoil(1, np.rot90), ["lateral view looks turned on its side"]),
    "PA upside down": (spoil(0, lambda v: np.rot90(v, 2)), ["PA view looks upside down"]),
    "mirrored lateral": (spoil(1, lambda v: v[::-1]), ["lateral view looks mirrored", "set flip_lateral"]),
    "PA without its bottom": (spoil(0, lambda v: cut(v, np.s_[:, :42])), ["PA view looks cut off at the bottom"]),
    "PA without a side": (spoil(0, lambda v: cut(v, np.s_[20:])), ["PA view looks cut off at the viewer's left"]),
    "overexposed": (spoil(0, lambda v: v.clip(None, np.percentile(v, 75))), ["PA view is overexposed"]),
    "lateral 70 mm higher": (spoil(1, lambda v: np.roll(v, -10, 1)), ["row by row"]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("look", [np.asarray, displayed], ids=["simulated", "as displayed"])
def test_every_fault_is_named(fault, look, pairs) -> None:
    change, words = FAULTS[fault]
    for pair in pairs.values():
        result = check_radiographs(np.ascontiguousarray(change(look(pair))))
        assert result.refusals == []
        for word in words:
            assert word in "; ".join(result.warnings)


@pytest.mark.parametrize("name", ["brick", "grass", "coins"])
def test_pictures_of_other_things_are_refused(name) -> None:
    photograph = resize(getattr(photographs, name)().astype(float), (SIZE, SIZE), anti_aliasing=True)
    result = check_radiographs(np.stack([photograph, photograph.T]))
    assert len(result.refusals) == 2
    assert "no chest radiograph" in result.refusals[0]
    assert result.warnings == []


def test_a_blank_picture_is_refused_and_a_ball_has_no_lungs(pairs) -> None:
    blank, line = np.zeros((SIZE, SIZE)), np.linspace(-1, 1, SIZE)
    assert check_radiographs(np.stack([blank, pairs["LIDC"][1]])).refusals
    ball = np.sqrt((0.6 - line[:, None] ** 2 - line**2).clip(0))
    assert "shows no lungs" in "; ".join(check_radiographs(np.stack([ball, pairs["LIDC"][1]])).warnings)


def test_basins_are_what_is_dark_and_surrounded() -> None:
    bowl = np.full((24, 24), 2.0) + np.arange(576).reshape(24, 24) * 1e-4
    bowl[8:12, 8:14] = 0
    assert basin_share(bowl) == pytest.approx(24 / 576)
    bowl[:9, 10] = 0  # a way out
    assert basin_share(bowl) == 0


def test_exposure_does_not_change_the_likeness(pairs) -> None:
    for pair in pairs.values():
        plain, curved = likenesses(pair[0]), likenesses(np.exp(0.4 * pair[0]))
        for explanation, value in plain.items():
            assert curved[explanation] == pytest.approx(value, abs=0.05)


def test_the_average_chest_hangs_upright_heart_on_the_viewers_right() -> None:
    pa, lateral = average_chest()
    middle = SIZE // 2
    heart = slice(int(0.52 * SIZE), int(0.6 * SIZE))
    assert pa[middle + 3 : middle + 12, heart].mean() > pa[middle - 12 : middle - 3, heart].mean() + 0.02
    assert pa[middle, -10:].mean() > pa[middle, :6].mean()  # the abdomen is down
    assert lateral[-20:-12, middle].mean() > lateral[12:20, middle].mean()  # the spine behind, to the viewer's right


def whole_body(hu: np.ndarray, scale: float = 0.7) -> np.ndarray:
    """A thorax small in its picture, of which the body goes on to head and feet, as in a whole-body scan."""
    small = zoom(hu.astype(np.float32), scale, order=1)
    before = (SIZE - len(small)) // 2
    across = (before, SIZE - len(small) - before)
    wide = np.pad(small, (across, across, (0, 0)), constant_values=-1024)
    area = np.count_nonzero(wide > -500, axis=(0, 1))
    whole = np.flatnonzero(area > np.median(area) / 2)
    return wide[:, :, np.clip(np.arange(SIZE) - before, whole[1], whole[-2])]


def without_upper_lobe(hu: np.ndarray) -> np.ndarray:
    """The right lung's upper half is solid."""
    solid = (hu < -400) & (hu > -960)
    solid[SIZE // 2 :] = False
    solid[:, :, SIZE // 2 :] = False
    return np.where(solid, 30, hu)


@pytest.mark.parametrize("change", [whole_body, without_upper_lobe])
def test_unusual_anatomy_that_hangs_right_is_not_called_turned_or_exchanged(change, lidc) -> None:
    ct = nibabel.load(lidc[0])
    for hu in (standardize_ct(np.asarray(ct.dataobj), ct.affine, SIZE).ct, synthesize_thorax(60_003, SIZE).ct):
        words = "; ".join(check_radiographs(radiographs(change(hu))).warnings)
        assert not [fault for fault in ("mirrored", "upside down", "on its side", "like a") if fault in words], words


def test_what_a_film_does_not_show_does_not_count(pairs) -> None:
    for pair in pairs.values():
        shown = pair.copy()
        shown[0, :, 52:] = np.nan
        shown[1, 54:] = np.nan
        shown[1, :, :8] = np.nan
        result = check_radiographs(shown)
        assert result.warnings == []
        assert result.measures["profile_correlation"] > 0.6
        shown[1] = np.roll(shown[1], 12, 1)
        result = check_radiographs(shown)
        assert result.measures["profile_correlation"] < 0.6
        assert any("row by row" in warning for warning in result.warnings)
        assert not any("row by row" in warning for warning in check_radiographs(shown, compare_heights=False).warnings)
