"""What a training refuses before it loads anything; and the configurations name every setting to the check."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from xrecon_bundle.engines import check_settings
from xrecon_bundle.engines.settings import RULES
from xrecon_bundle.files import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = {"train.yaml": ["fine_tune.yaml"], "fine.yaml": ["first.yaml", "coarse.yaml", "sharp.yaml"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("resume", "maybe", "true or false"),
        ("resume", 1, "true or false"),
        ("amp", None, "true or false"),
        ("gradient_clip", -1, "above 0, or null"),
        ("gradient_clip", float("inf"), "above 0, or null"),
        ("accumulation_steps", 0, "whole number from 1"),
        ("accumulation_steps", -2, "whole number from 1"),
        ("batch_size", True, "whole number from 1"),
        ("max_epochs", 2.5, "whole number from 1"),
        ("num_workers", -1, "whole number from 0"),
        ("seed", -1, "whole number from 0"),
        ("learning_rate", "abc", "above 0"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("volume_weight", -3, "number from 0"),
        ("cache_rate", 2, "from 0 to 1"),
        ("ema_decay", 1, "below 1"),
        ("spatial_size", -64, "whole number from 16"),
        ("network_preset", "huge", "compact"),
        ("condition_views", ["frontal"], "pa, lateral"),
        ("condition_views", "pa", "a list"),
        ("key_metric", "foo", "image metric"),
        ("key_metric", None, "image metric"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(name, value, said):
    with pytest.raises(InputError, match=rf"--{name} .*{said}"):
        check_settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("resume", "false", False),
        ("resume", "True", True),
        ("resume", True, True),
        ("amp", "false", False),
        ("gradient_clip", "null", None),
        ("gradient_clip", 0.5, 0.5),
        ("condition_views", [], []),
        ("key_metric", "mae_hu_body", "mae_hu_body"),
        ("adversarial_weight", 0, 0),
    ],
)
def test_words_of_the_command_line_mean_what_they_say(name, value, meant):
    assert check_settings(**{name: value}) == {name: meant}


@pytest.mark.parametrize("config", OVERLAYS)
def test_the_configurations_check_every_setting_that_there_is_a_rule_for(config):
    """And use what the check gives, where a word would be taken for something else."""
    for overlay in ([], *([name] for name in OVERLAYS[config])):
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in (config, *overlay)])
        settings = parser.get("settings")
        assert RULES.keys() & parser.get().keys() == settings.keys() - {"_target_"}
        assert parser.get("training")[0] == "@settings"
        parser["resume"], parser["amp"] = "false", "false"
        assert parser.get_parsed_content("settings")["resume"] is False
        trainer = parser.get("train#trainer")
        assert trainer["amp"] == "$@settings['amp']"
