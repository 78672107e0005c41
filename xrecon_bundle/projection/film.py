"""What an X-ray system makes of a patient: from the thickness of soft tissue and bone to a film as it is sent.

A film differs from the line integrals that a network learns from in its physics (a broad spectrum, scatter, quanta,
blur), in what the system does to it (tone curve, contrast of each scale, window, eight bits, JPEG), in what lies on it
(letters, leads, arms) and in what it shows (field of view, collimation). :func:`make_film` does all of it in this
order; a :class:`Look` says how much of each.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import affine_transform, binary_fill_holes, center_of_mass, gaussian_filter
from torch.nn.functional import grid_sample

from .. import frame
from . import ConeBeamGeometry, Projector
from .radiographs import SCATTER_SIGMA_MM, SHADOW_NEPERS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

DENSE_HU = 150.0  # above it the excess over water counts as bone
DETECTOR_MM = 560.0  # larger than the chest frame's: films show shoulders and abdomen
EXTENSION_MM = 130.0
BODY_HU = -500.0
NECK, NECK_MM = (0.4, 0.7), 110.0  # width and depth of the neck over the shoulders', and how far up it begins
WHOLE_SECTION = 0.6  # of the median section; less is an oblique end of the scan
FINE = 3  # times finer are thin lines drawn
# Photon energies (keV); water in 1/mm; what bone adds over water, relative to 70 keV, where a CT's HU are taken.
# From NIST XCOM, water and cortical bone (ICRU-44, 1.92 g/cm^3): (1.92 mu_bone - mu_water) at each energy.
ENERGIES = np.array([40.0, 50.0, 60.0, 80.0, 100.0])
WATER = np.array([0.02683, 0.02269, 0.02059, 0.01837, 0.01707])
BONE = np.array([3.24, 1.89, 1.28, 0.79, 0.60])


@dataclass(frozen=True)
class Look:
    """How a film looks. The defaults are a perfect system: line integrals at 70 keV, nothing more.

    Attributes:
        energies: keV of a soft and a hard part of the spectrum, 40 to 100.
        hard_share: of the hard part, in [0, 1].
        scatter: scattered over primary photons behind the patient, after the grid.
        photons: per pixel in the open beam; infinite: no noise.
        blur_mm: standard deviation of focus and detector, on the detector.
        flatness: share of what is broader than 20 mm that is taken out (dynamic range compression), in [0, 1).
        detail: by how much details are amplified, for 2, 5 and 12 mm.
        window: the grey levels, as shares of the picture's range, that become 0 and 1.
        curve: steepness of the sigmoid tone curve; 0: straight.
        middle: of the sigmoid, in [0, 1].
        gamma: exponent after it.
        jpeg: quality, 1 to 100; None: not compressed. Either way with eight bits if given.
        marks: letters, each ``(text, u, v, height, grey)``, lengths as shares of the picture.
        lines: leads and tubes, each ``(points, width_mm, nepers)``; points as shares of the picture.
        limbs: arms and the like, each ``(points, width_mm, tissue_mm, bone_mm)``.
        collimation: corner points as shares of the picture, or None: all of it is exposed.
        border: grey of what is not exposed, 0 (dark) to 1.
    """

    energies: tuple[float, float] = (70.0, 70.0)
    hard_share: float = 0.5
    scatter: float = 0.0
    photons: float = np.inf
    blur_mm: float = 0.0
    flatness: float = 0.0
    detail: tuple[float, float, float] = (0.0, 0.0, 0.0)
    window: tuple[float, float] = (0.0, 1.0)
    curve: float = 0.0
    middle: float = 0.5
    gamma: float = 1.0
    jpeg: int | None = None
    marks: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    lines: list[tuple[np.ndarray, float, float]] = field(default_factory=list)
    limbs: list[tuple[np.ndarray, float, float, float]] = field(default_factory=list)
    collimation: np.ndarray | None = None
    border: float = 0.0


class Film(NamedTuple):
    """A film.

    Attributes:
        grey: ``(U, V)`` float32 in [0, 1], bright is dense, borders as they are printed.
        exposed: ``(U, V)`` bool: where it shows something.
    """

    grey: np.ndarray
    exposed: np.ndarray


def extend_scan(hu: np.ndarray, margin_mm: float = EXTENSION_MM) -> np.ndarray:
    """A scan longer by ``margin_mm`` at either end: its outermost whole sections go on as soft tissue.

    A CT of the chest ends within the shoulders and the belly, a film does not. Away from the scan the sections become
    smoother, without gas and with less bone; towards the head they narrow to :data:`NECK` of their size.

    Args:
        hu: ``(X, Y, Z)`` in the chest frame, HU.
        margin_mm: length added towards the head and towards the feet.

    Raises:
        ValueError: the scan shows no body.
    """
    step = frame.voxel_size(hu.shape[0])
    first, last = whole_sections(hu)
    margin = round(margin_mm / step)
    result = np.empty((*hu.shape[:2], hu.shape[2] + 2 * margin), hu.dtype)
    result[:, :, margin + first : margin + last + 1] = hu[:, :, first : last + 1]
    for end, away, narrowest in ((first, range(margin + first - 1, -1, -1), NECK), (last, None, (1.0, 1.0))):
        places = range(margin + last + 1, result.shape[2]) if away is None else away
        section = _soft_section(hu[:, :, end])
        for number, place in enumerate(places):
            result[:, :, place] = _section_beyond(section, (number + 1) * step, narrowest, step)
    return result


def whole_sections(hu: np.ndarray) -> tuple[int, int]:
    """First and last axial section of a scan ``(X, Y, Z)`` in HU that is not cut off, but for the outermost two.

    Raises:
        ValueError: the scan shows no body.
    """
    area = np.count_nonzero(hu > BODY_HU, axis=(0, 1))
    if not area.any():
        raise ValueError("the scan shows no body")
    whole = np.flatnonzero(area > WHOLE_SECTION * np.median(area[area > 0]))
    inner = slice(1, -1) if len(whole) > 2 else slice(None)
    return int(whole[inner][0]), int(whole[inner][-1])


def _soft_section(section: np.ndarray) -> np.ndarray:
    """An axial section ``(X, Y)`` with soft tissue in place of gas and of most bone, air around."""
    body = binary_fill_holes(section > BODY_HU)
    return np.where(body, section.clip(-100, 300), frame.AIR_HU).astype(np.float32)


def _section_beyond(section: np.ndarray, away_mm: float, narrowest: tuple[float, float], step: float) -> np.ndarray:
    """What a section becomes ``away_mm`` from it: narrower about the body's middle, and smoother."""
    share = min(1.0, away_mm / NECK_MM)
    share = share**2 * (3 - 2 * share)
    smooth = gaussian_filter(section, min(0.4 * away_mm, 12.0) / step, mode="nearest", truncate=3)
    if narrowest == (1.0, 1.0):
        return smooth
    middle = np.array(center_of_mass(section > BODY_HU))
    zoom = 1 / (1 - share * (1 - np.array(narrowest)))
    return affine_transform(smooth, zoom, middle - zoom * middle, order=1, mode="nearest")


def simulate_materials(
    hu: Float[Tensor, "x y z"] | np.ndarray, pixels: int, detector_mm: float = DETECTOR_MM
) -> np.ndarray:
    """Thickness of soft tissue and of bone along the rays of both views.

    Args:
        hu: ``(S, S, Z)`` in HU on the chest frame's axes and voxels, centred; Z may be larger, see :func:`extend_scan`.
        pixels: along each edge of the detector.
        detector_mm: edge of the square detector, whose middle is the chest frame's.

    Returns:
        ``(2, 2, pixels, pixels)`` float32: PA ``(u, v) = (x, z)`` and left lateral ``(y, z)``; of each the thickness in
        mm of water of what is no denser than :data:`DENSE_HU`, and of the excess beyond.
    """
    hu = torch.as_tensor(np.asarray(hu), dtype=torch.float32)
    soft = (1 + hu / 1000).clamp(0, 1 + DENSE_HU / 1000)
    volume = torch.stack([soft, _bone(hu)])[None]
    views = []
    for chest in (ConeBeamGeometry.chest_pa(pixels), ConeBeamGeometry.chest_lateral(pixels)):
        geometry = replace(chest, detector_size=(detector_mm, detector_mm))
        views.append(Projector(geometry)(volume, spacing=frame.voxel_size(hu.shape[0]))[0, :, 0])
    return torch.stack(views).numpy()


def simulate_dense(hu: Float[Tensor, "x y z"] | np.ndarray, lungs: tuple[float, float], pixels: int) -> np.ndarray:
    """Thickness of bone and contrast agent along the rays of both views, parted along each view's depth.

    Args:
        hu: as of :func:`simulate_materials`.
        lungs: the middle of both lungs along x and y, in voxels.
        pixels: along each edge of the chest frame's detector.

    Returns:
        ``(5, pixels, pixels)`` float32, mm of water beyond :data:`DENSE_HU`: of PA what lies in front of the lungs'
        middle and behind it, of the lateral view what lies to the right, within
        :data:`~xrecon_bundle.frame.MIDDLE_MM` of it, to the left.
    """
    hu = torch.as_tensor(np.asarray(hu), dtype=torch.float32)
    bone = _bone(hu)
    spacing = frame.voxel_size(hu.shape[0])
    x, y = (torch.arange(n) - middle for n, middle in zip(hu.shape[:2], lungs, strict=True))
    depths, sides = (torch.stack(parts) for parts in frame.parts_of_chest(x * spacing, y * spacing))
    pa = Projector(ConeBeamGeometry.chest_pa(pixels))((bone * depths[:, None, :, None])[None], spacing=spacing)
    lateral = Projector(ConeBeamGeometry.chest_lateral(pixels))((bone * sides[..., None, None])[None], spacing=spacing)
    return torch.cat([pa[0, :, 0], lateral[0, :, 0]]).numpy()


def _bone(hu: Tensor) -> Tensor:
    """What bone and contrast agent add to soft tissue, relative to water."""
    return ((hu - DENSE_HU) / 1000).clamp(min=0)


def film_matrix(
    shape: tuple[int, int],
    pixel_mm: float,
    pixels: int,
    detector_mm: float = DETECTOR_MM,
    shift_mm: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    degrees: float = 0.0,
) -> np.ndarray:
    """``(3, 3)`` from a film's pixel ``(u, v, 1)`` to the pixel of the materials' detector that it shows.

    Args:
        shape: of the film.
        pixel_mm: of the film.
        pixels: of the materials' detector, along each edge.
        detector_mm: edge of that detector.
        shift_mm: where on the detector the film's middle lies.
        scale: how much larger the patient looks on the film.
        degrees: by which the film is turned on the detector, from u to v.
    """
    step = pixel_mm / scale * pixels / detector_mm
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[:2, :2] = step * np.array([[cos, -sin], [sin, cos]])
    middle = (np.array(shape) - 1) / 2
    matrix[:2, 2] = (pixels - 1) / 2 + np.array(shift_mm) * pixels / detector_mm - matrix[:2, :2] @ middle
    return matrix


def make_film(
    materials: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, int],
    look: Look,
    rng: np.random.Generator | None = None,
    detector_mm: float = DETECTOR_MM,
) -> Film:
    """A film of one view.

    Args:
        materials: ``(2, P, P)`` thickness of soft tissue and bone in mm, see :func:`simulate_materials`.
        matrix: ``(3, 3)``, see :func:`film_matrix`.
        shape: pixels ``(U, V)`` of the film.
        look: how it looks.
        rng: of the noise; None: a fresh, unseeded one.
        detector_mm: edge of the materials' detector.

    Returns:
        the film; its grey levels span [0, 1] before the window.
    """
    soft, bone = _sample(materials, matrix, shape)
    pixel_mm = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))) * detector_mm / materials.shape[-1]
    for points, width_mm, tissue_mm, bone_mm in look.limbs:
        limb = _stroke(points, width_mm / pixel_mm, shape)
        soft = soft + tissue_mm * limb
        bone = bone + bone_mm * _stroke(points, 0.25 * width_mm / pixel_mm, shape)
    metal = sum((nepers * _stroke(points, width / pixel_mm, shape) for points, width, nepers in look.lines), 0.0)
    grey = _develop(_expose(soft, bone, metal, pixel_mm, look, rng), pixel_mm, look)
    exposed = _polygon(look.collimation, shape) if look.collimation is not None else np.ones(shape, dtype=bool)
    grey = np.where(exposed, grey, look.border)
    for text, u, v, height, level in look.marks:
        _write(grey, text, u, v, height, level)
    if look.jpeg is not None:
        grey = _eight_bits(grey, look.jpeg)
    return Film(grey.astype(np.float32), exposed)


def random_look(rng: np.random.Generator, lateral: bool = False, strength: float = 1.0) -> Look:
    """A look of any system and habit.

    Args:
        rng: NumPy's random source; the same state gives the same look.
        lateral: raised arms may lie over the top of the picture.
        strength: 0 to 1, how far the tone may be from the line integrals, and how often things lie on the film.
    """
    sure = strength * rng.random()
    lines = [_random_line(rng) for _ in range(rng.integers(1, 5))] if rng.random() < 0.3 * strength else []
    if rng.random() < 0.12 * strength:
        lines = [*lines, *(_random_box(rng) for _ in range(rng.integers(1, 4)))]
    limbs = [_random_arm(rng) for _ in range(2)] if lateral and rng.random() < 0.6 * strength else []
    marks = [_random_mark(rng) for _ in range(rng.integers(1, 4))] if rng.random() < 0.7 * strength else []
    soft = rng.uniform(40, 70)
    return Look(
        energies=(soft, rng.uniform(soft, 100)),
        hard_share=rng.uniform(0.2, 0.8),
        scatter=rng.uniform(0, 1.2) * strength,
        photons=float(np.exp(rng.uniform(np.log(3e4), np.log(1e7)))),
        blur_mm=rng.uniform(0, 0.8),
        flatness=rng.uniform(0, 0.75) * strength,
        detail=tuple(strength * rng.uniform(-0.2, 1.3, 3)),
        window=(rng.uniform(-0.03, 0.15) * strength, 1 - rng.uniform(-0.25, 0.15) * strength),
        curve=6 * sure,
        middle=rng.uniform(0.4, 0.7),
        gamma=float(np.exp(rng.uniform(-0.35, 0.5) * strength)),
        jpeg=int(rng.integers(40, 96)) if rng.random() < 0.7 else None,
        marks=marks,
        lines=lines,
        limbs=limbs,
        collimation=_random_collimation(rng) if rng.random() < 0.6 else None,
        border=float(rng.choice([0.0, 0.0, 1.0, rng.random()])),
    )


# --- the steps -------------------------------------------------------------------------------------------------------


def _sample(pictures: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """``(C, *shape)`` float32: pictures ``(C, U, V)`` at the pixels that ``matrix`` names, linear, edges going on."""
    size = np.array(pictures.shape[-2:])
    # grid_sample wants the last axis first, and -1 to 1 from edge to edge
    rows = matrix[1::-1]
    u, v = (torch.arange(count, dtype=torch.float32) for count in shape)
    terms = [
        ((float(a) * u[:, None] + float(b) * v[None] + float(c)) * 2 + 1) / float(n) - 1
        for (a, b, c), n in zip(rows, size[::-1], strict=True)
    ]
    images = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))[None]
    grid = torch.stack(terms, dim=-1)[None]
    return grid_sample(images, grid, padding_mode="border", align_corners=False)[0].numpy()


def _expose(
    soft: np.ndarray,
    bone: np.ndarray,
    metal: np.ndarray | float,
    pixel_mm: float,
    look: Look,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """The detector's signal, as nepers."""
    photons: np.ndarray = np.zeros_like(soft)
    for energy, share in zip(look.energies, (1 - look.hard_share, look.hard_share), strict=True):
        water, dense = (
            float(np.exp(np.interp(np.log(energy), np.log(ENERGIES), np.log(table)))) for table in (WATER, BONE)
        )
        photons = photons + share * np.exp(-(water * soft + dense * frame.MU_WATER_PER_MM * bone + metal))
    if look.scatter > 0:  # in proportion to L exp(-L), spread widely, as in detect_radiographs
        once = -np.log(np.maximum(photons, 1e-6)) * photons
        shadow = photons < np.exp(-SHADOW_NEPERS)
        spread = _broad(once, SCATTER_SIGMA_MM / pixel_mm)
        if shadow.any():
            photons = photons + spread * (look.scatter * photons[shadow].mean() / spread[shadow].mean())
    if np.isfinite(look.photons):
        rng = rng or np.random.default_rng()
        # Poisson noise by its normal limit: photons are many.
        noise = rng.standard_normal(photons.shape, dtype=np.float32)
        photons = np.maximum(photons + np.sqrt(photons / look.photons) * noise, 1 / look.photons)
    if look.blur_mm > 0:
        photons = gaussian_filter(photons, look.blur_mm / pixel_mm, mode="nearest")
    return -np.log(np.maximum(photons, 1e-6))


def _develop(nepers: np.ndarray, pixel_mm: float, look: Look) -> np.ndarray:
    """The system's processing: grey levels in [0, 1]."""
    grey = nepers
    if look.flatness:
        grey = grey - look.flatness * _broad(grey, 20 / pixel_mm)
    for gain, width in zip(look.detail, (2.0, 5.0, 12.0), strict=True):
        if gain:
            grey = grey + gain * (nepers - _broad(nepers, width / pixel_mm))
    low, high = np.percentile(grey, (frame.LOWER_PERCENTILE, frame.UPPER_PERCENTILE))
    grey = (grey - low) / max(high - low, 1e-6)
    grey = ((grey - look.window[0]) / (look.window[1] - look.window[0])).clip(0, 1)
    if look.curve > 0:
        ends = _sigmoid(look.curve * (np.array([0.0, 1.0]) - look.middle))
        grey = (_sigmoid(look.curve * (grey - look.middle)) - ends[0]) / (ends[1] - ends[0])
    return grey**look.gamma


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _broad(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of ``sigma`` pixels; a wide one on fewer of them."""
    factor = int(sigma / 1.5)
    if factor < 2:
        return gaussian_filter(image, sigma, mode="nearest", truncate=3)
    small = np.asarray(Image.fromarray(image.astype(np.float32)).reduce(factor))
    # What means over blocks and straight lines between them blur already: a twelfth and a sixth of a block squared.
    width = np.sqrt((sigma / factor) ** 2 - 0.25)
    smooth = Image.fromarray(gaussian_filter(small, width, mode="nearest", truncate=3))
    rows, columns = image.shape
    box = (0, 0, columns / factor, rows / factor)
    return np.asarray(smooth.resize((columns, rows), Image.Resampling.BILINEAR, box=box))


def _canvas(shape: tuple[int, int], size: int = 1) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", (shape[0] * size, shape[1] * size))  # PIL's (column, row) is our (u, v)
    return picture, ImageDraw.Draw(picture)


def _points(points: np.ndarray, shape: tuple[int, int], size: int = 1) -> list[tuple[float, float]]:
    return [(u * shape[0] * size, v * shape[1] * size) for u, v in np.asarray(points)]


def _stroke(points: np.ndarray, width: float, shape: tuple[int, int]) -> np.ndarray:
    """A round rod's thickness, at most 1, along a line of some pixels' width."""
    size = FINE if width < 8 else 1  # a thin line without steps
    picture, draw = _canvas(shape, size)
    whole, corners = max(size, round(width * size)), _points(points, shape, size)
    draw.line(corners, fill=255, width=whole, joint="curve")
    if size == 1:
        for u, v in (corners[0], corners[-1]):  # round ends
            draw.circle((u, v), whole / 2, fill=255)
    drawn = np.asarray(picture.reduce(size), dtype=np.float32).T / 255
    return _broad(np.ascontiguousarray(drawn), width / 5) * min(1.0, width)


def _polygon(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture, draw = _canvas(shape)
    draw.polygon(_points(points, shape), fill=255)
    return np.asarray(picture).T > 0


def _write(grey: np.ndarray, text: str, u: float, v: float, height: float, level: float) -> None:
    """Letters, upright, into ``grey``."""
    picture, draw = _canvas(grey.shape)
    size = max(6.0, height * grey.shape[1])
    draw.text((u * grey.shape[0], v * grey.shape[1]), text, fill=255, font_size=size)
    ink = np.asarray(picture, dtype=np.float32).T / 255
    grey += (level - grey) * ink


def _eight_bits(grey: np.ndarray, quality: int) -> np.ndarray:
    memory = io.BytesIO()
    Image.fromarray(np.rint(grey.clip(0, 1) * 255).astype(np.uint8).T).save(memory, "JPEG", quality=quality)
    return np.asarray(Image.open(memory), dtype=np.float32).T / 255


def _random_line(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """A lead or a tube: from anywhere, along a smooth way."""
    start, turn = rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi)
    turns = turn + np.cumsum(np.cumsum(rng.normal(0, 0.02, 40)))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(0.008, 0.025)
    return start + np.cumsum(steps, axis=0), rng.uniform(1, 5), rng.uniform(0.1, 1.0)


def _random_box(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """A pacemaker, an electrode or a clip: a short, broad, dense rod."""
    middle, turn = rng.uniform(0.15, 0.85, 2), rng.uniform(0, np.pi)
    half = rng.uniform(0.003, 0.03) * np.array([np.cos(turn), np.sin(turn)])
    return np.stack([middle - half, middle + half]), rng.uniform(4, 40), rng.uniform(0.5, 3.0)


def _random_arm(rng: np.random.Generator) -> tuple[np.ndarray, float, float, float]:
    """A raised arm in the lateral: from the shoulder up, and to the front."""
    shoulder = np.array([rng.uniform(0.3, 0.75), rng.uniform(0.0, 0.2)])
    elbow = shoulder + rng.uniform((-0.7, -0.5), (0.15, -0.05))
    return np.stack([shoulder, elbow]), rng.uniform(60, 120), rng.uniform(70, 170), rng.uniform(5, 25)


def _random_mark(rng: np.random.Generator) -> tuple[str, float, float, float, float]:
    """A word, most often near an edge."""
    text = str(rng.choice(["L", "R", "PA", "LAT", "ERECT", "12:45", "PORTABLE", "I", "O"]))
    place = rng.uniform(0.02, 0.9, 2)
    if rng.random() < 0.7:
        place[rng.integers(2)] = rng.choice([rng.uniform(0.01, 0.12), rng.uniform(0.82, 0.93)])
    return text, *place, rng.uniform(0.02, 0.07), rng.choice([0.0, 1.0, 1.0])


def _random_collimation(rng: np.random.Generator) -> np.ndarray:
    """A field, straight, tilted or round, that leaves out up to a tenth at each edge."""
    if rng.random() < 0.1:
        angle = np.linspace(0, 2 * np.pi, 60)
        return 0.5 + rng.uniform(0.5, 0.62) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = rng.uniform(-0.08, 0.1, 2), 1 - rng.uniform(-0.08, 0.1, 2)
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    tilt = np.radians(rng.normal(0, 2)) if rng.random() < 0.5 else 0.0
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return (corners - 0.5) @ turn.T + 0.5
