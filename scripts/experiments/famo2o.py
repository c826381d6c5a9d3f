"""FamO2O on IQL, offline and then online, and what coefficients its balance policy chooses."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from experiments.behaviours import behaviour, mixture, trained
from experiments.claim import Claim, Outcome, Workshop, final_scores, interval, less
from steelyard.agents.networks import MLP
from steelyard.agents.parts import Family
from steelyard.agents.types import Spec
from steelyard.envs import datasets
from steelyard.envs.d4rl_table import normalized_score
from steelyard.envs.datasets import Dataset
from steelyard.trainers.config import Transfer
from steelyard.trainers.curves import Curves
from steelyard.trainers.d4rl_presets import D4RL
from steelyard.trainers.restore import restore
from steelyard.trainers.shrinking import debug

SOURCE = "FamO2O's project page: locomotion total after fine-tuning, IQL 718.3 and IQL + FamO2O 772.0 (6 seeds)"
SETTING = (3, 10_000, 10_000)
"""Least seeds, offline updates and environment steps at which a claim is judged."""
RECIPES = ("iql", "iql-famo2o")


@dataclass(frozen=True)
class FamO2O:
    """A family of policies with state-adaptive balances makes IQL better after online fine-tuning."""

    task: str = "Hopper-v4"
    """Locomotion task."""
    ratio: float = 0.5
    """Share of good transitions in the data; the others are random."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    updates: int = 10_000
    """Offline updates; published: a million."""
    env_steps: int = 10_000
    """Online environment steps, one update each; published: a million."""
    transitions: int = 100_000
    """Size of the data."""
    behaviour_steps: int = 100_000
    """Environment steps for which the good behaviour, SAC, is trained."""
    behaviour_seed: int = 1
    """Its seed."""
    width: int = 64
    """Width of the two hidden layers; published: 256."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "updates": self.updates, "environment steps": self.env_steps})
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def measure(self, workshop: Workshop) -> Outcome:
        """Train behaviour, both recipes, and look at the chosen coefficients."""
        expert = behaviour(self.task, self.behaviour_steps, self.behaviour_seed, self.debug)
        workshop.train([expert])
        path = mixture(workshop, trained(workshop, expert), self.ratio, 4_000 if self.debug else self.transitions)
        runs = [self.run(recipe, seed, str(path)) for recipe in RECIPES for seed in self.seeds]
        curves = workshop.train(runs)
        data = datasets.load(path)
        chosen = [self.coefficients(workshop, run, data) for run in runs if isinstance(cast(Any, run.agent).balance, Family)]
        picture = workshop.folder / "coefficients.png"
        draw(picture, data, chosen)
        claims = [self.better(curves), self.lower_where_good(chosen, data)]
        rows: list[dict[str, object]] = [
            {
                "recipe": recipe,
                "offline": str(self.scores(curves, recipe, offline=True)),
                "after online": str(self.scores(curves, recipe)),
            }
            for recipe in RECIPES
        ]
        return Outcome(claims, curves, {"scores": rows}, {"coefficients": picture})

    def run(self, recipe: str, seed: int, data: str) -> Transfer:
        """One of them."""
        base, small = D4RL[f"{recipe}-locomotion"], MLP((self.width, self.width), gain=2**0.5, output_gain=1.0)
        agent: Any = dataclasses.replace(cast(Any, base.agent), actor=small, critic=small, value=small, actor_optimizer=None)
        if isinstance(agent.balance, Family):
            agent = dataclasses.replace(agent, balance=dataclasses.replace(agent.balance, network=small))
        run = dataclasses.replace(
            base,
            task=self.task,
            preset=recipe,
            agent=agent,
            dataset=data,
            seed=seed,
            offline_updates=self.updates,
            env_steps=self.env_steps,
            evaluation_interval=max(self.updates // 5, 1),
            checkpoint_interval=self.updates + self.env_steps,
            threads=1,
            log_to=(),
        )
        return debug(run) if self.debug else run

    def scores(self, curves: Curves, recipe: str, offline: bool = False) -> Any:
        """Normalised scores over seeds at the end of a phase."""
        label = recipe + "-debug" * self.debug
        finals = final_scores(curves, self.task, label)
        if offline:
            end = min(200, self.updates) if self.debug else self.updates
            finals = {seed: float(c.values[c.env_steps <= end][-1]) for seed, c in curves[self.task][label].items()}
        return interval({seed: normalized_score("", value, self.task) or 0.0 for seed, value in finals.items()}, self.task)

    def better(self, curves: Curves) -> Claim:
        """Mean after fine-tuning above the base's."""
        base, family = (self.scores(curves, recipe) for recipe in RECIPES)
        return Claim(
            sentence="FamO2O raises IQL's score after online fine-tuning.",
            source=SOURCE,
            expected="mean above that of IQL, 95 % intervals apart",
            measured=f"IQL {base}, with FamO2O {family}",
            seeds=len(self.seeds),
            holds=family.low > base.high and not self.scaled(),
            note=f"Scaled down ({self.scaled()}): this shows nothing." if self.scaled() else "",
        )

    def lower_where_good(self, chosen: list[np.ndarray], data: Dataset) -> Claim:
        """The paper's visual check as a rank correlation over states.

        Over episodes it would be the order of the many short, random ones among themselves that decides.
        """
        returns = np.repeat(data.returns, data.lengths)
        correlations = {
            seed: float(np.asarray(stats.spearmanr(own, returns))[0]) for seed, own in zip(self.seeds, chosen, strict=True)
        }
        found = interval(correlations, self.task)
        return Claim(
            sentence="The chosen coefficient is lower where data is good.",
            source="FamO2O, its figure of coefficients over states",
            expected="rank correlation of a state's coefficient with the return of its episode below zero, interval included",
            measured=f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]",
            seeds=len(self.seeds),
            holds=found.high < 0 and not self.scaled(),
            note=f"Scaled down ({self.scaled()}): this shows nothing." if self.scaled() else "",
        )

    def coefficients(self, workshop: Workshop, run: Transfer, data: Dataset) -> np.ndarray:
        """The coefficient that the balance policy chooses in each state of the data, (transitions,)."""
        agent, _ = restore(workshop.run_folder(run), run, Spec(data.obs_size, data.action_size))
        with torch.no_grad():
            return torch.as_tensor(agent.balance.choose(agent.normalizer(torch.from_numpy(data.obs)))).numpy()


def draw(path: Path, data: Dataset, chosen: list[np.ndarray]) -> None:
    """Episodes by their return and the mean coefficient chosen in their states, a panel per seed."""
    figure = Figure(figsize=(4 * len(chosen), 3.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, own in zip(figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0], chosen, strict=True):
        ax.scatter(data.returns, np.add.reduceat(own, data.starts) / data.lengths, s=6, alpha=0.3, color="#0072B2", linewidth=0)
        ax.set_xlabel("return of the episode")
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mean coefficient chosen in its states")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
