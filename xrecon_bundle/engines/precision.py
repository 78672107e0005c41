"""Where mixed precision pays."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device | str) -> bool:
    """Does the device compute in bfloat16 by itself? Elsewhere a step takes several times as long as in float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))
