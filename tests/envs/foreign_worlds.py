"""Environments as users write them, well and badly; importing this module registers them with Gymnasium."""

import _random
import os
import random

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple


class Walk(gym.Env):
    """A point on a line, in order; the base of the disorderly ones below."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-2.0, 4.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.age = self.np_random.uniform(-1, 1), 0
        return self.observe(), {}

    def step(self, action):
        self.place += 0.1 * float(action[0]) + 0.01 * self.np_random.standard_normal()
        self.age += 1
        return self.observe(), float(action[0]), bool(abs(self.place) > 3), False, {}

    def observe(self):
        return np.array([self.place, self.age], dtype=np.float64)


class DictWalk(Walk):
    observation_space = Dict({"place": Box(-np.inf, np.inf, (1, 1), np.float64), "parity": Discrete(2)})

    def observe(self):
        return {"place": np.array([[self.place]]), "parity": self.age % 2}


class ActorAndCritic(Walk):
    """Critics see where it is and whether its age is odd, the actor where it is."""

    actor = "actor"

    def __init__(self):
        critic = Dict({"0 place": Box(-np.inf, np.inf, (1,), np.float64), "1 parity": Discrete(2)})
        self.observation_space = Dict({self.actor: Box(-np.inf, np.inf, (1,), np.float64), "critic": critic})

    def observe(self):
        place = np.array([self.place])
        return {self.actor: place, "critic": {"0 place": place, "1 parity": self.age % 2}}


class PolicyAndCritic(ActorAndCritic):
    """The same under another name, which comes behind the critic's in a sorted Dict."""

    actor = "policy"


class TupleWalk(Walk):
    observation_space = Tuple((Discrete(3), Box(-np.inf, np.inf, (), np.float32)))

    def observe(self):
        return self.age % 3, np.array(self.place, dtype=np.float32)


class EndsAtOnce(Walk):
    """Terminates and is truncated in the same, first step."""

    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, True, True, {}


class NanObservation(Walk):
    def observe(self):
        observation = super().observe()
        return observation if self.age < 3 else observation * np.nan


class NanReward(Walk):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, np.nan if self.age == 3 else 0.0, *rest


class WrongShape(Walk):
    def observe(self):
        return np.zeros(2 if self.age < 3 else 5)


class Dies(Walk):
    def step(self, action):
        if self.age == 2:
            os._exit(7)
        return super().step(action)


class Opaque(Walk):
    """Keeps state where plain data cannot reach it."""

    def reset(self, *, seed=None, options=None):
        self.stream = iter(range(10**9))
        return super().reset(seed=seed, options=options)


class Body:
    """A part of a world, made in the first reset."""

    def __init__(self):
        self.trail = [0.0]
        self.parts = {"left": np.zeros(2), 3: {1, 2}}
        self.same_trail = self.trail


class Nested(Walk):
    """Keeps its state in objects within objects, with shared parts."""

    def reset(self, *, seed=None, options=None):
        self.body = Body()
        self.legacy = np.random.RandomState(0 if seed is None else seed)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.body.trail.append(float(action[0]) + self.legacy.randn())
        self.body.parts["left"] += self.body.same_trail[-1]
        return super().step(action)

    def observe(self):
        return np.array([self.place + self.body.parts["left"][1], len(self.body.same_trail)])


class TwoByTwo(Walk):
    """Actions that are a matrix, partly without bounds."""

    action_space = Box(
        np.array([[0, -np.inf], [-1, -4]], np.float32), np.array([[10, np.inf], [1, 0]], np.float32), dtype=np.float32
    )

    def step(self, action):
        self.seen = action
        return super().step(action[1])


class Endless(Walk):
    """Has neither terminal states nor a time limit."""

    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}


class Drawn(Walk):
    """Draws itself, with choices for actions."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def step(self, action):
        return super().step([action - 1.0])

    def render(self):
        rows, columns = np.mgrid[:20, :30]
        shade = 7 * rows + 3 * columns + 1000 * self.place
        return np.stack([shade, 2 * shade, 3 * shade], axis=-1).astype(np.int64).astype(np.uint8)


class Imaged(Walk):
    """Observations are grey pictures."""

    observation_space = Box(0, 255, (8, 8), np.uint8)

    def observe(self):
        return (np.arange(64).reshape(8, 8) + int(1000 * self.place)).astype(np.uint8)


class OneElement(Walk):
    """Its reward is an array of one number."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward]), *rest


class NoReward(Walk):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, None if self.age == 3 else reward, *rest


class HalfOpen(Walk):
    """Actions with one bound, of which [-1, 1] holds nothing."""

    action_space = Box(np.array([2], np.float32), np.array([np.inf], np.float32))


class Whole(Walk):
    """Whole numbers as actions."""

    action_space = Box(0, 5, (1,), np.int64)


class Talkative(Walk):
    """What it says beside observations changes shape, type and names."""

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, {"goal": np.zeros(2), "found": {"a": 1}, "note": "begun"}

    def step(self, action):
        obs, reward, _, truncated, _ = super().step(action)
        goal = np.zeros(2 + self.age % 3)
        return obs, reward, self.age >= 5 + int(self.place > 0), truncated, {"goal": goal, "found": 0.5, "note": self.age}


class Dice(Walk):
    """Draws from a stream of the standard library."""

    def __init__(self):
        self.dice = random.Random(0)

    def observe(self):
        return np.array([self.place, self.dice.gauss(0, 1)])


class Hidden(Walk):
    """Draws from a stream that a class written in C keeps to itself."""

    class Stream(_random.Random):
        """Looks as if it were written in Python."""

    def __init__(self):
        self.stream = self.Stream(0)

    def observe(self):
        return np.array([self.place, self.stream.random()])


class Goals(Walk):
    """Draws where it begins from its own spaces."""

    def __init__(self):
        self.observation_space = Dict({"place": Box(-2.0, 2.0, (1,), np.float64)})
        self.action_space = Box(-2.0, 4.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = float(self.observation_space.sample()["place"][0]) + 0.01 * float(self.action_space.sample()[0])
        return self.observe(), {}

    def observe(self):
        return {"place": np.array([self.place])}


for kind in (
    Walk,
    Dice,
    Hidden,
    Goals,
    Talkative,
    DictWalk,
    ActorAndCritic,
    PolicyAndCritic,
    TupleWalk,
    EndsAtOnce,
    NanObservation,
    NanReward,
    WrongShape,
    Dies,
    Opaque,
    Nested,
    TwoByTwo,
    OneElement,
    NoReward,
    HalfOpen,
    Whole,
    Drawn,
    Imaged,
):
    gym.register(f"{kind.__name__}-v0", entry_point=f"foreign_worlds:{kind.__name__}", max_episode_steps=20)
gym.register("Endless-v0", entry_point="foreign_worlds:Endless")
