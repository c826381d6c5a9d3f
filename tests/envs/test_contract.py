"""The contract checker passes on every adapter, and catches each way of breaking the contract."""

from dataclasses import replace

import pytest
import torch

from steelyard.envs import EnvError, check_contract, make
from steelyard.envs.gym_envs import GymEnv
from steelyard.envs.probes import PROBES, ProbeEnv
from steelyard.envs.vector import VectorEnv

STARTS_AT_RANDOM = ("probe-observation", "probe-action-observation")


@pytest.mark.parametrize("task", PROBES)
def test_probes_keep_the_contract(task):
    check_contract(make(task, 4), deterministic=task not in STARTS_AT_RANDOM)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("HalfCheetah-v5", {}),
        ("Hopper-v5", {"action_repeat": 3}),
        ("Pendulum-v1", {}),
        ("Pendulum-v1", {"vectorization": "async"}),
        ("cartpole-swingup", {}),
        ("walker-walk", {"action_repeat": 2}),
        ("lqr-lqr_2_1", {}),
        ("HalfCheetah-v5", {"vectorization": "batch"}),
        ("Hopper-v5", {"vectorization": "batch", "action_repeat": 3}),
        ("Walker2d-v5", {"vectorization": "batch"}),
        ("Ant-v5", {"vectorization": "batch", "action_repeat": 2}),
        ("Humanoid-v5", {"vectorization": "batch"}),
    ],
)
def test_adapters_keep_the_contract(task, options):
    env = make(task, 3, **options)
    try:
        assert isinstance(env, VectorEnv)
        check_contract(env, steps=400 if env.spec.can_terminate else None)
    finally:
        env.close()


class Broken(ProbeEnv):
    """A sound probe with one fault, to be named by the test."""

    def __init__(self, task="probe-observation"):
        probe = PROBES[task].args[1]
        super().__init__(task, probe, 3)


class WrongDtype(Broken):
    def step(self, action):
        return super().step(action)._replace(reward=super().step(action).reward.double())


class WrongShape(Broken):
    def step(self, action):
        step = super().step(action)
        return step._replace(reward=step.reward[:, None])


class Unseeded(Broken):
    def reset(self, seed=None):
        return super().reset()


class OneSeedForAll(Broken):
    def reset(self, seed=None):
        super().reset(seed)
        self._key = torch.full_like(self._key, seed or 0)
        return self._observe()[:, None]


class AcceptsAnyAction(Broken):
    def step(self, action):
        return super().step(action[: self.num_envs].nan_to_num().clamp(-1, 1))


class TerminalObservationLost(Broken):
    """Gives the reset observation as the successor: the commonest mistake of all."""

    def step(self, action):
        step = super().step(action)
        return step._replace(obs=step.obs + 1.0, terminated=torch.zeros_like(step.terminated))


class ResetRowWithReward(Broken):
    """Reports every second call as a reset, with a reward that belongs to nobody."""

    calls = 0

    def step(self, action):
        self.calls += 1
        step = super().step(action)
        return step._replace(valid=torch.full_like(step.valid, self.calls % 2 == 1), reward=torch.ones_like(step.reward))


class HidesResetRows(GymEnv):
    """Sells the row that resets a world as a transition from one episode into the next."""

    def __init__(self):
        super().__init__("Pendulum-v1", 2)

    def step(self, action):
        step = super().step(action)
        return step._replace(valid=torch.ones_like(step.valid))


class ShowsTheResetTooEarly(GymEnv):
    """Says that the next call resets, yet hands out other observations than the terminal one."""

    def __init__(self):
        super().__init__("Pendulum-v1", 2)

    def step(self, action):
        step = super().step(action)
        return step._replace(obs=torch.where(step.truncated[:, None], step.obs + 1.0, step.obs))


class NeverEnds(Broken):
    def step(self, action):
        step = super().step(action)
        none = torch.zeros_like(step.terminated)
        return step._replace(obs=step.next_obs, terminated=none, truncated=none)


class TerminatesUnannounced(Broken):
    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, can_terminate=False)


class ReusesItsBuffer(Broken):
    def __init__(self):
        super().__init__()
        self._buffer = torch.zeros(3, 1)

    def step(self, action):
        step = super().step(action)
        self._buffer.copy_(step.obs)
        return step._replace(obs=self._buffer)


class ForgetsItsState(Broken):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "episode": state["episode"] + 1})


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (WrongDtype, "reward is torch.float64"),
        (WrongShape, r"reward has shape \(3, 1\)"),
        (Unseeded, "same seed"),
        (OneSeedForAll, "seed"),
        (AcceptsAnyAction, "must be refused"),
        (TerminalObservationLost, "next_obs must equal obs"),
        (ResetRowWithReward, "valid|reset"),
        (HidesResetRows, "first of a new episode"),
        (ShowsTheResetTooEarly, "last of the episode"),
        (NeverEnds, "horizon"),
        (TerminatesUnannounced, "can_terminate"),
        (ReusesItsBuffer, "written to by a later call|same seed"),
        (ForgetsItsState, "load_state_dict"),
    ],
)
def test_checker_catches(kind, complaint):
    with pytest.raises(EnvError, match=complaint):
        check_contract(kind())


def test_a_deterministic_world_must_be_declared():
    with pytest.raises(EnvError, match="another seed"):
        check_contract(make("probe-constant", 2))
