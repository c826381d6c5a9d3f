"""The state of NumPy's generators as what `torch.load(weights_only=True)` reads."""

from typing import Any

import numpy as np
import torch

Generator = np.random.Generator | np.random.RandomState


def generator_state(generator: Generator) -> dict[str, Any]:
    """All that determines what `generator`, of PCG64 or the older MT19937, draws."""
    if isinstance(generator, np.random.RandomState):
        old: dict[str, Any] = dict(generator.get_state(legacy=False))
        keys = torch.from_numpy(old["state"]["key"].astype(np.int64))
        return {"keys": keys, "place": int(old["state"]["pos"]), "has_gauss": int(old["has_gauss"]), "gauss": float(old["gauss"])}
    state: dict[str, Any] = dict(generator.bit_generator.state)
    # Two numbers of 128 bits, more than a checkpoint's plain integers hold.
    large = {name: str(number) for name, number in state["state"].items()}
    return {**large, "has_uint32": state["has_uint32"], "uinteger": state["uinteger"]}


def load_generator(generator: Generator, saved: dict[str, Any]) -> None:
    """Make `generator` what it was when `generator_state` read it."""
    if isinstance(generator, np.random.RandomState):
        keys = saved["keys"].numpy().astype(np.uint32)
        generator.set_state(("MT19937", keys, saved["place"], saved["has_gauss"], saved["gauss"]))
        return
    half = {name: saved.get(name, 0) for name in ("has_uint32", "uinteger")}
    large = {name: int(saved[name]) for name in ("state", "inc")}
    generator.bit_generator.state = {"bit_generator": "PCG64", "state": large, **half}
