"""BC and IQL on D4RL's human demonstrations of the Adroit hand at a door."""

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import Any, cast

from experiments.claim import Claim, Outcome, Workshop, final_scores, interval, less
from steelyard.agents.networks import MLP
from steelyard.envs.d4rl_table import normalized_score
from steelyard.trainers.config import Transfer
from steelyard.trainers.curves import Curves
from steelyard.trainers.d4rl_presets import D4RL
from steelyard.trainers.shrinking import debug

TASK = "AdroitHandDoor-v1"
PUBLISHED = {"bc": (2.34, 4.00, 9.41), "iql": (3.26, 1.83, 13.52)}
"""CORL on door-human-v1, 4 seeds: mean and deviation of the last scores, mean of the best."""
SETTING = (3, 20_000)


@dataclass(frozen=True)
class DoorHuman:
    """BC and IQL on door-human, 25 demonstrations of a person: near zero, as published."""

    data: str = "door-human-v0"
    """D4RL's name, or where its file lies. A file in the folder STEELYARD_DATA is not downloaded."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    updates: int = 20_000
    """Updates; published: a million."""
    width: int = 128
    """Width of the two hidden layers; published: 256."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """The worlds are an extra."""
        if importlib.util.find_spec("gymnasium_robotics"):
            return None
        return "the Adroit hand belongs to gymnasium-robotics; install it: pip install 'steelyard[robotics]'."

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "updates": self.updates})
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def measure(self, workshop: Workshop) -> Outcome:
        """Train both and compare."""
        curves = workshop.train([self.run(recipe, seed) for recipe in PUBLISHED for seed in self.seeds])
        return Outcome([self.claim(recipe, curves) for recipe in PUBLISHED], curves)

    def run(self, recipe: str, seed: int) -> Transfer:
        """One of them."""
        base, small = D4RL[f"{recipe}-adroit"], MLP((self.width, self.width), gain=2**0.5, output_gain=1.0)
        networks = {name: small for name in ("actor", "critic", "value") if hasattr(base.agent, name)}
        run = dataclasses.replace(
            base,
            task=TASK,
            preset=recipe,
            agent=dataclasses.replace(cast(Any, base.agent), **networks),
            dataset=self.data,
            seed=seed,
            offline_updates=self.updates,
            evaluation_interval=max(self.updates // 2, 1),
            evaluation_episodes=20,
            checkpoint_interval=self.updates,
            threads=1,
            log_to=(),
        )
        return debug(run) if self.debug else run

    def claim(self, recipe: str, curves: Curves) -> Claim:
        """Our mean within what four seeds of the source spread over, or above."""
        finals = final_scores(curves, TASK, recipe + "-debug" * self.debug)
        found = interval({seed: normalized_score("door-human-v0", value, TASK) or 0.0 for seed, value in finals.items()}, TASK)
        mean, deviation, best = PUBLISHED[recipe]
        return Claim(
            sentence=f"{recipe.upper()} scores {mean} on door-human (last evaluation; {best} at its best one).",
            source="CORL, door-human-v1, 4 seeds, a million updates",
            expected=f"mean between {mean - 3 * deviation:.1f} and {best + 3 * deviation:.1f}: three deviations around last and best",
            measured=str(found),
            seeds=len(self.seeds),
            holds=mean - 3 * deviation <= found.value <= best + 3 * deviation and not self.scaled(),
            note=f"Scaled down ({self.scaled()}): this shows nothing." if self.scaled() else "",
        )
