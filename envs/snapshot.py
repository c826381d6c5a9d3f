# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Saving a world that was never written to be saved: its Python objects are walked and their plain data is carried.

`save` returns tensors and plain data only, so that `torch.load(weights_only=True)` reads it, and None where a world holds
something that cannot be seen as plain data (a Box2D world, a socket): then nothing is saved rather than half of it.
"""

import functools
import logging
import random
import types
from collections import OrderedDict, deque
from enum import Enum
from typing import Any, TypeVar

import mujoco
import numpy as np
import torch

from steelyard.envs.simulator import ModelReference, load_data, pack, save_data, unpack
from steelyard.envs.vector import EnvError

Built = TypeVar("Built")

_CONSTANT = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
"""Types of attributes that are taken to be part of the program, not of its state; closures must not keep state."""
_NEVER_STATE = ("pygame", "gymnasium.envs.mujoco.mujoco_rendering", "gymnasium.envs.registration")
"""Modules whose objects only draw pictures or describe how a world was made."""
_POINTER = np.dtype(np.intp).itemsize
_CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}


class _OpaqueError(Exception):
    """Something that is neither plain data nor known to be stateless."""


class WorldSnapshot:
    """Saves and restores worlds that are built alike. Make it from a world that was built but never reset."""

    def __init__(self, world: object):
        finder = _Saver(None)
        try:
            finder.save(world)
        except _OpaqueError:
            finder.models.clear()
        self._references = [ModelReference(model) for model in finder.models]

    def save(self, world: object) -> dict[str, Any] | None:
        """The state of `world` as tensors and plain data, or None if it holds something that cannot be carried."""
        try:
            return {"world": _Saver(self._references).save(world)}
        except _OpaqueError:
            return None

    def load(self, world: object, state: dict[str, Any]) -> Any:
        """Give `world` a saved state, in place where it has identity, and return it. `world` must have been reset once.

        Raises `EnvError` if `world` is built otherwise than the one that was saved.
        """
        return _Loader(self._references).load(world, state["world"])


class _Saver:
    """One walk over one world. Objects met again are written as references, so that what was shared stays shared."""

    def __init__(self, references: list[ModelReference] | None):
        self._references = references
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # an id is only unique while its object lives
        self.models: list[mujoco.MjModel] = []

    def save(self, value: Any) -> Any:
        if value is None or type(value) in (bool, float, str):
            return value
        if type(value) is int:
            # PCG64's state has 128 bits.
            return value if -(2**63) <= value < 2**63 else {"kind": "int", "value": str(value)}
        if isinstance(value, Enum):
            return {"kind": "enum", "name": value.name}
        if isinstance(value, np.generic):
            return {"kind": "scalar", **self._packed(np.asarray(value))}
        if isinstance(value, (*_CONSTANT, np.dtype, logging.Logger)) or type(value).__module__.startswith(_NEVER_STATE):
            return {"kind": "constant"}
        if id(value) in self._seen:
            return {"kind": "same", "as": self._seen[id(value)]}
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return self._save_new(value)

    def _save_new(self, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return {"kind": "array", **self._packed(value)}
        if type(value) is torch.Tensor:
            return {"kind": "tensor", "value": value.detach().clone()}
        for kind, container in _CONTAINERS.items():
            if type(value) is container:
                return {"kind": kind, "items": [self.save(item) for item in value], "maxlen": getattr(value, "maxlen", None)}
        if type(value) in (dict, OrderedDict):
            return {"kind": "dict", "keys": [self.save(key) for key in value], "items": [self.save(v) for v in value.values()]}
        if isinstance(value, np.random.Generator):
            return {"kind": "generator", "state": self.save(value.bit_generator.state)}
        if isinstance(value, np.random.RandomState):
            return {"kind": "generator", "state": self.save(value.get_state(legacy=False))}
        if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
            return {"kind": "random", "state": self.save(value.getstate())}
        if isinstance(value, mujoco.MjModel):
            return {"kind": "model", "index": len(self.models), "state": self._save_model(value)}
        if isinstance(value, mujoco.MjData):
            return {"kind": "data", "state": _transparent(save_data(value.model, value))}
        if _is_plain_object(value):
            return {"kind": "object", "attributes": {name: self.save(item) for name, item in vars(value).items()}}
        raise _OpaqueError(type(value).__qualname__)

    def _packed(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.hasobject or array.dtype.names:
            raise _OpaqueError("an array of objects")
        return pack(array)

    def _save_model(self, model: mujoco.MjModel) -> dict[str, Any] | None:
        self.models.append(model)
        if self._references is None:
            return None
        if len(self.models) > len(self._references):
            raise _OpaqueError("a model that was not there when the world was built")
        return _transparent(self._references[len(self.models) - 1].save(model))


class _Loader:
    """The same walk, writing. `current` is what the world has now at the place of `saved`."""

    def __init__(self, references: list[ModelReference]):
        self._references = references
        self._seen: list[Any] = []

    def load(self, current: Any, saved: Any) -> Any:
        if not isinstance(saved, dict):
            return saved
        kind = saved["kind"]
        if kind == "constant":
            return current
        if kind == "int":
            return int(saved["value"])
        if kind == "scalar":
            return unpack(saved)[()]
        if kind == "enum":
            return type(_expect(current, Enum))[saved["name"]]
        if kind == "same":
            return self._seen[saved["as"]]
        place = len(self._seen)
        self._seen.append(current)  # counted before its parts, as when saving; objects that contain themselves find it
        self._seen[place] = self._load_new(current, saved, kind)
        return self._seen[place]

    def _load_new(self, current: Any, saved: dict[str, Any], kind: str) -> Any:
        if kind == "array":
            return _load_array(current, unpack(saved))
        if kind == "tensor":
            return saved["value"].clone()
        if kind in _CONTAINERS:
            before = list(current) if isinstance(current, (list, tuple, deque)) else []
            before += [None] * (len(saved["items"]) - len(before))
            items = [self.load(old, item) for old, item in zip(before, saved["items"], strict=False)]
            return deque(items, saved["maxlen"]) if kind == "deque" else _CONTAINERS[kind](items)
        if kind == "dict":
            return self._load_dict(current, saved)
        if kind == "generator":
            state = self.load(None, saved["state"])
            if isinstance(current, np.random.RandomState):
                current.set_state(state)
            else:
                _expect(current, np.random.Generator).bit_generator.state = state
        elif kind == "random":
            _expect(current, random.Random).setstate(self.load(None, saved["state"]))
        elif kind == "model":
            self._references[saved["index"]].load(_expect(current, mujoco.MjModel), saved["state"])
        elif kind == "data":
            data = _expect(current, mujoco.MjData)
            load_data(data.model, data, saved["state"])
        else:
            self._load_object(current, saved["attributes"])
        return current

    def _load_dict(self, current: Any, saved: dict[str, Any]) -> dict[Any, Any]:
        before = current if isinstance(current, dict) else {}
        keys = [self.load(None, key) for key in saved["keys"]]
        items = [self.load(before.get(key), item) for key, item in zip(keys, saved["items"], strict=True)]
        return type(before)(zip(keys, items, strict=True))

    def _load_object(self, current: Any, attributes: dict[str, Any]) -> None:
        if not _is_plain_object(current):
            raise EnvError(f"a saved world has an object where this one has {current!r}; start the run afresh with --fresh.")
        for name in [name for name in vars(current) if name not in attributes]:
            del vars(current)[name]  # made on first use, which the saved world had not reached
        for name, item in attributes.items():
            vars(current)[name] = self.load(vars(current).get(name), item)


def _load_array(current: Any, saved: np.ndarray) -> np.ndarray:
    """`saved`, written into `current` if that is a window on memory which is not numpy's, such as a view of `MjData`."""
    owner = current
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(current, np.ndarray) and owner is not None and current.shape == saved.shape and current.flags.writeable:
        current[...] = saved
        return current
    return saved


def _is_plain_object(value: Any) -> bool:
    """Whether all that `value` holds is in its `__dict__`: written in Python all the way up, and without slots."""
    return hasattr(value, "__dict__") and all(map(_holds_nothing_itself, type(value).__mro__[:-1]))


def _holds_nothing_itself(kind: type) -> bool:
    """Whether instances of a class are no larger than its parent's, but for the pointers to a `__dict__` and to weak references.

    What slots and classes written in C add is out of sight.
    """
    parent = kind.__base__ or object
    pointers = sum(name in vars(kind) for name in ("__dict__", "__weakref__"))
    return kind.__basicsize__ - parent.__basicsize__ <= pointers * _POINTER and not vars(kind).get("__slots__")


def _expect(value: Any, kind: type[Built]) -> Built:
    if not isinstance(value, kind):
        raise EnvError(f"a saved world has a {kind.__name__} where this one has {value!r}; start the run afresh with --fresh.")
    return value


def _transparent(state: dict[str, Any] | None) -> dict[str, Any]:
    if state is None:
        raise _OpaqueError("a simulator with state out of sight")
    return state
