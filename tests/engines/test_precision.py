"""Mixed precision only where the device computes in bfloat16 by itself: emulated, a step takes five times as long."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from xrecon_bundle.engines import has_bfloat16


@pytest.mark.parametrize(
    ("capable", "wanted"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
    ],
)
def test_a_cpu_is_asked_what_it_can(capable, wanted, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert has_bfloat16(torch.device("cpu")) is wanted
    parser = ConfigParser()
    parser.read_config("configs/fine.yaml")
    assert parser.get_parsed_content("amp") is wanted
