"""Products of float32 matrices by the library that is fastest on the processor, in float32."""

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

Result = TypeVar("Result")

MATMUL = cast(Any, torch.backends.mkldnn).matmul
"""Torch's switch for which precision oneDNN may take for float32 products. "none" leaves them to the default library, MKL."""


def fast_float32(function: Callable[..., Result], device: torch.device) -> Callable[..., Result]:
    """The function, with oneDNN for float32 products of matrices wherever that is faster and as exact as torch's default.

    The switch belongs to the process: it is set for the time of a call alone, and left as it is where someone has set it already.
    """
    if device.type != "cpu" or not onednn_wins():
        return function

    @wraps(function)
    def run(*arguments: Any) -> Result:
        before = MATMUL.fp32_precision
        if before != "none":
            return function(*arguments)
        MATMUL.fp32_precision = "bf16"
        try:
            return function(*arguments)
        finally:
            MATMUL.fp32_precision = before

    return run


@cache
def onednn_wins() -> bool:
    """Whether the processor is one on which MKL multiplies at half of its speed, and oneDNN does it without rounding.

    On AMD's processors with AVX-512 (Zen 4 and later) MKL keeps to AVX2: 98 GFLOP/s against oneDNN's 227 on a core of Zen 5, for
    [256, 512] x [512, 2048]. A constant of the machine, not a measurement, so that a run that is stopped and continued stays the same
    to the bit.
    """
    return "AuthenticAMD" in processor() and torch.backends.cpu.get_cpu_capability() == "AVX512" and stays_float32()


def processor() -> str:
    """What Linux says of the processor; empty elsewhere."""
    description = Path("/proc/cpuinfo")
    return description.read_text() if description.exists() else ""


def stays_float32() -> bool:
    """Whether oneDNN multiplies in float32 when bfloat16 is allowed, as it does where the processor has no unit for tiles (AMX) to round for."""
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = "bf16"
    try:
        # Neither bfloat16 nor TF32 tells this number from one, and float32 holds the sum of 64 of them.
        number = 1 + 2.0**-12
        return bool((torch.full((64, 64), number) @ torch.ones(64, 64) == 64 * number).all())
    finally:
        MATMUL.fp32_precision = before
