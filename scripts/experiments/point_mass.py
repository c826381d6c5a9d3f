"""Weighted behaviour cloning on a point mass: seconds, no training loop, the effect of trajectory weighting alone."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop
from steelyard.trainers import trajectories

STEPS, TRAJECTORIES = 60, 400
EXPECTED = {
    0.01: {"uniform": 25, "RW 0.1": 62, "AW 0.1": 67, "RW 0.2": 45, "top 10 %": 75},
    0.05: {"uniform": 27, "RW 0.1": 75, "AW 0.1": 79, "RW 0.2": 51, "top 10 %": 86},
    0.10: {"uniform": 29, "RW 0.1": 84, "AW 0.1": 85, "RW 0.2": 60, "top 10 %": 101},
    0.50: {"uniform": 55, "RW 0.1": 96, "AW 0.1": 97, "RW 0.2": 87, "top 10 %": 100},
}
"""A prototype's scores, 5 seeds (0: random, 100: expert), by share of expert trajectories."""
TOLERANCE = 12.0
"""Points of score within which ours must be."""

Array = NDArray[np.floating]


@dataclass(frozen=True)
class PointMass:
    """Trajectory weighting on a point mass: behaviour cloning from a few good trajectories among many random ones."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of data and worlds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """Fewer seeds than the prototype's five."""
        return f"{len(self.seeds)} instead of 5 seeds or more" * (len(self.seeds) < 5)

    def measure(self, workshop: Workshop) -> Outcome:
        """Clone by every weighting, and compare with the prototype."""
        table: list[dict[str, object]] = []
        claims = []
        for share, expected in EXPECTED.items():
            scores = {name: [score(share, name, seed) for seed in self.seeds] for name in expected}
            means = {name: float(np.mean(values)) for name, values in scores.items()}
            table += [
                {"expert share": share, "weighting": name, "score": round(means[name], 1), "prototype": expected[name]}
                for name in expected
            ]
            close = all(abs(means[name] - value) <= TOLERANCE for name, value in expected.items())
            better = means["AW 0.1"] > means["uniform"] + 10
            claims.append(
                Claim(
                    sentence=f"With {share:.0%} expert trajectories weighting raises the clone's score.",
                    source="trajectory weighting (Hong et al. 2023) on a point mass, prototype of 5 seeds",
                    expected=f"{expected}, each within {TOLERANCE:.0f}, and AW above uniform by more than 10",
                    measured=str({name: round(value) for name, value in means.items()}),
                    seeds=len(self.seeds),
                    holds=close and better and not self.scaled(),
                    note=f"Scaled down ({self.scaled()})." if self.scaled() else "",
                )
            )
        return Outcome(claims, tables={"scores": table})


def play(policy: str | Array, episodes: int, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Observations [episodes, steps, 4], actions [episodes, steps, 2] and returns [episodes] of a policy: its name, or a linear map [5, 2]."""
    position, velocity = generator.uniform(-1, 1, (episodes, 2)), np.zeros((episodes, 2))
    seen, acted, returns = [], [], np.zeros(episodes)
    for _ in range(STEPS):
        obs = np.concatenate((position, velocity), 1)
        if isinstance(policy, str):
            expert = -3 * position - 3 * velocity + 0.1 * generator.standard_normal((episodes, 2))
            action = expert if policy == "expert" else generator.uniform(-1, 1, (episodes, 2))
        else:
            action = np.concatenate((obs, np.ones((episodes, 1))), 1) @ policy
        action = action.clip(-1, 1)
        seen.append(obs)
        acted.append(action)
        velocity = (0.9 * velocity + 0.1 * action).clip(-1, 1)
        position = position + 0.2 * velocity
        returns -= 0.1 * np.linalg.norm(position, axis=1)
    return np.stack(seen, 1), np.stack(acted, 1), returns


def weights(name: str, returns: Array, first: Array) -> Array:
    """Weight of each trajectory's transitions by a weighting's name; all have the same length."""
    lengths, values = torch.full((len(returns),), STEPS), torch.from_numpy(returns)
    if name == "uniform":
        return np.full(len(returns), 1 / (STEPS * len(returns)))
    if name == "top 10 %":
        return trajectories.top_fraction(values, lengths, 0.1).numpy()
    kind, temperature = name.split()
    scores = values if kind == "RW" else trajectories.advantage_scores(values, torch.from_numpy(first).float(), "quadratic")
    return trajectories.probabilities(trajectories.normalized_scores(scores), lengths, float(temperature)).numpy()


def score(share: float, name: str, seed: int) -> float:
    """Score of a linear clone of weighted data: 0 is random, 100 the expert."""
    generator = np.random.default_rng(seed)
    good = max(round(share * TRAJECTORIES), 1)
    parts = [play("expert", good, generator), play("random", TRAJECTORIES - good, generator)]
    obs, action, returns = (np.concatenate([part[i] for part in parts]) for i in range(3))
    weight = np.repeat(weights(name, returns, obs[:, 0]), STEPS)[:, None]
    inputs = np.concatenate((obs.reshape(-1, 4), np.ones((TRAJECTORIES * STEPS, 1))), 1)
    clone = np.linalg.solve(inputs.T @ (weight * inputs) + 1e-9 * np.eye(5), inputs.T @ (weight * action.reshape(-1, 2)))
    reached, expert, random = (
        play(policy, 200, np.random.default_rng(1000 + seed))[2].mean() for policy in (clone, "expert", "random")
    )
    return float(100 * (reached - random) / (expert - random))
