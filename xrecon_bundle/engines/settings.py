"""Whether the settings of a training are possible, before anything is loaded.

MONAI takes what the command line says as Python: ``--resume false`` is the word "false", which counts as true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..files import InputError
from ..metrics.image import image_metric
from ..networks.generator import PRESETS, VIEWS


def check_settings(**settings: Any) -> dict[str, Any]:
    """Refuse a setting of a training that would do nothing, or another thing than it says.

    Args:
        settings: by name, as the configuration has them.

    Returns:
        the same, with the words true, false and null as what they mean.

    Raises:
        InputError: one is impossible; it is named, with what it may be.
    """
    meant = {
        name: WORDS.get(value.lower(), value) if isinstance(value, str) else value for name, value in settings.items()
    }
    for name, value in meant.items():
        possible, said = RULES[name]
        if not possible(value):
            raise InputError(f"--{name} {value!r}: {said}")
    return meant


def _whole(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is(int, value) and value >= least, f"a whole number from {least}"


def _number(least: float, most: float = float("inf")) -> tuple[Callable[[Any], bool], str]:
    said = f"a number from {least:g}" + (f" to {most:g}" if most < float("inf") else "")
    return lambda value: _is((int, float), value) and least <= value <= most, said


def _is(kind: type | tuple[type, ...], value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _above_zero(value: Any) -> bool:
    return _is((int, float), value) and 0 < value < float("inf")


def _is_metric(name: Any) -> bool:
    try:
        image_metric(name)
    except (ValueError, AttributeError):
        return False
    return True


WORDS = {"true": True, "false": False, "null": None, "none": None}
SWITCH = (lambda value: isinstance(value, bool)), "true or false"
RATE = _above_zero, "a number above 0"
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "spatial_size": _whole(16),
    "network_preset": (lambda value: value in PRESETS, f"one of {', '.join(PRESETS)}"),
    "max_epochs": _whole(1),
    "decay_start": _whole(0),
    "epoch_steps": _whole(1),
    "learning_rate": RATE,
    "discriminator_learning_rate": RATE,
    "batch_size": _whole(1),
    "accumulation_steps": _whole(1),
    "amp": SWITCH,
    "activation_checkpointing": SWITCH,
    "gradient_clip": (lambda value: value is None or _above_zero(value), "a number above 0, or null"),
    "ema_decay": (lambda value: _is((int, float), value) and 0 <= value < 1, "a number from 0 to below 1"),
    "volume_weight": _number(0),
    "projection_weight": _number(0),
    "adversarial_weight": _number(0),
    "condition_views": (
        lambda value: isinstance(value, list | tuple) and set(value) <= {*VIEWS},
        f"a list of none, one or both of {', '.join(VIEWS)}",
    ),
    "film_share": _number(0, 1),
    "mirror_share": _number(0, 1),
    "bent_mm": _number(0),
    "val_interval": _whole(1),
    "checkpoint_interval": _whole(1),
    "key_metric": (_is_metric, "the name of an image metric (docs/metrics.md)"),
    "resume": SWITCH,
    "cache_rate": _number(0, 1),
    "num_workers": _whole(0),
    "seed": _whole(0),
}
