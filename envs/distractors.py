"""Distractors: extra observations that nothing depends on and that are hard to predict (Voelcker et al. 2022, VaGraM, section 5)."""

from typing import Any

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError, VectorEnv

SYSTEM_SEED = 20_220_425
"""Seed of the dynamics: the same for every world, run and process, so that training and evaluation meet the same distractors."""
LARGEST = 20.0
"""Magnitude beyond which a component switches back to its reset value."""
START = 0.1
"""Standard deviation of a component at the start of an episode."""


MOST = 1_000
"""Distractors that a world may have: each depends on all others."""


class SwitchingChaos:
    """z <- A z; z <- z + 0.1 sin(R z); then every component beyond 20 in magnitude is put to its own fixed value c.

    Entries of A and c are drawn from N(0, 1), those of R are squares of draws from N(0, 10^2). The spectral radius of A is about sqrt(size), so
    the components grow until they switch: one-step changes have a standard deviation of 10 and more.

    Args:
        size: Number of components.
        device: Where states live.
        seed: Of A, R and c.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", seed: int = SYSTEM_SEED):
        generator = torch.Generator().manual_seed(seed)
        draw = (torch.randn(size, size, generator=generator, dtype=torch.float64) for _ in range(2))
        self.linear, self.frequency = next(draw).to(device), (10 * next(draw)).square().to(device)
        self.restart = torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    def advance(self, z: Tensor) -> Tensor:
        """The successors [rows, size] of states [rows, size], both float64."""
        z = z @ self.linear.T
        z = z + 0.1 * (z @ self.frequency.T).sin()
        return torch.where(z.abs() > LARGEST, self.restart, z)


class Distracted:
    """Worlds with distractors behind their own observations.

    At each reset a world's distractors start from N(0, 0.1^2) and advance once, as its observation is made; from then on they advance with
    every observation. They depend on nothing, and nothing depends on them. A world's start depends on its own seed and episode alone.

    Args:
        env: The worlds.
        size: Number of distractors.
        seed: Of the distractors' dynamics.

    Raises `EnvError` for a size below one or above `MOST`, and for worlds that show pictures, or critics more than policies.
    """

    def __init__(self, env: VectorEnv, size: int, seed: int = SYSTEM_SEED):
        if not 1 <= size <= MOST:
            raise EnvError(f"distractors is {size:,}; give one to {MOST:,}, or leave them out with 0.")
        if env.spec.picture is not None:
            raise EnvError("distractors are numbers behind an observation, and this task shows pictures; leave them out.")
        if env.spec.policy_obs_size is not None:
            raise EnvError(
                "distractors stand behind an observation, and so does what this task shows to critics alone; leave one of the two out."
            )
        self.env, self.num_envs, self.device, self.size = env, env.num_envs, env.device, size
        self.system = SwitchingChaos(size, env.device, seed)
        spec = env.spec
        self.spec = Spec(spec.obs_size + size, spec.action_size, spec.horizon, spec.can_terminate, spec.discrete)
        self.keys = torch.arange(env.num_envs)
        self.episodes = torch.zeros(env.num_envs, dtype=torch.int64)
        self.z = torch.zeros(env.num_envs, size, dtype=torch.float64, device=env.device)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        obs = self.env.reset(seed)
        if seed is None:
            self.episodes = self.episodes + 1
        else:
            self.keys = seed + torch.arange(self.num_envs)
            self.episodes = torch.zeros_like(self.episodes)
        self.z = self.system.advance(self.starts())
        return self.seen(obs)

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size]; see `VectorEnv.step`."""
        step = self.env.step(action)
        advanced = self.system.advance(self.z)
        done = step.terminated | step.truncated
        # Worlds that were reset in this call show a first observation beside the last one; worlds reset in a call of its own show it now.
        fresh = (done & (step.obs != step.next_obs).any(-1)) | ~step.valid
        next_z, self.z = advanced, advanced
        if bool(fresh.any()):
            self.episodes = self.episodes + fresh.cpu()
            first = self.system.advance(self.starts())
            self.z = torch.where(fresh[:, None], first, advanced)
            next_z = torch.where(step.valid[:, None], advanced, self.z)
        next_obs = torch.cat((step.next_obs, next_z.float()), -1)
        return step._replace(obs=self.seen(step.obs), next_obs=next_obs)

    def seen(self, obs: Tensor) -> Tensor:
        """Observations with the distractors of now."""
        return torch.cat((obs, self.z.float()), -1)

    def starts(self) -> Tensor:
        """[num_envs, size] float64: where each world's distractors start in its present episode."""
        each = []
        for key, episode in zip(self.keys.tolist(), self.episodes.tolist(), strict=True):
            generator = torch.Generator().manual_seed((key * 1_000_003 + episode * 7_919 + 1) % 2**63)
            each.append(START * torch.randn(self.size, generator=generator, dtype=torch.float64))
        return torch.stack(each).to(self.device)

    def render(self) -> Any:
        """A picture of world 0, in which distractors are not seen."""
        return self.env.render()

    def state_dict(self) -> dict[str, Any] | None:
        """The worlds' state and the distractors'; None if the worlds cannot be saved."""
        own = self.env.state_dict()
        if own is None:
            return None
        return {"env": own, "keys": self.keys.clone(), "episodes": self.episodes.clone(), "z": self.z.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        if state["z"].shape != self.z.shape:
            raise EnvError(
                f"the saved state has {tuple(state['z'].shape)} worlds and distractors, here are {tuple(self.z.shape)}; "
                "use the same numbers."
            )
        self.env.load_state_dict(state["env"])
        self.keys, self.episodes = state["keys"].clone(), state["episodes"].clone()
        self.z = state["z"].to(self.device).clone()

    def close(self) -> None:
        """Release the worlds."""
        self.env.close()
