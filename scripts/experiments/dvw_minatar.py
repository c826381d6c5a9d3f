"""Variance weights on MinAtar, at the published length or at whatever length a machine affords."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, cast

from experiments.claim import Claim, Outcome, Workshop, final_scores, interval, less
from steelyard.agents.dqn import DQN
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.presets import MINATAR
from steelyard.trainers.shrinking import debug

Game = Literal["breakout", "space_invaders", "asterix", "seaquest", "freeway"]
Base = Literal["dqn", "m-dqn"]
PUBLISHED: dict[tuple[Game, Base], tuple[int, int]] = {
    ("breakout", "dqn"): (38, 51),
    ("breakout", "m-dqn"): (64, 85),
    ("space_invaders", "dqn"): (128, 155),
    ("space_invaders", "m-dqn"): (180, 246),
    ("asterix", "dqn"): (20, 31),
    ("asterix", "m-dqn"): (42, 43),
    ("seaquest", "dqn"): (25, 48),
    ("seaquest", "m-dqn"): (89, 88),
    ("freeway", "dqn"): (58, 58),
    ("freeway", "m-dqn"): (63, 62),
}
"""Return after ten million frames without and with the weights, read from the published plots (5 seeds)."""
GAIN = 1.15
"""Where the published returns differ by more than this factor, ours must differ."""
SETTING = (5, 10_000_000)
"""Published seeds and frames, the least at which a claim is judged."""
SEPARATION = 2_000_000
"""Frames before which the published curves lie on one another."""
SOURCE = "Kitamura et al. 2023, MinAtar figure, read from the plot"


@dataclass(frozen=True)
class DvwMinatar:
    """Deep Variance Weighting on MinAtar: weights of the inverse variance lift M-DQN (and DQN) on Breakout and Space Invaders."""

    games: tuple[Game, ...] = ("breakout", "space_invaders")
    """Games."""
    bases: tuple[Base, ...] = ("m-dqn",)
    """Agents that are trained without and with the weights."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    frames: int = SETTING[1]
    """Environment steps of each run. Exploration falls over a tenth of them, as published; the published curves separate only after two million."""
    evaluations: int = 100
    """Evaluations in the course of a run."""
    evaluation_episodes: int = 10
    """Episodes of each."""
    num_envs: int = 1
    """Games at once, as published one; a single step of sixteen is followed by the four updates that are due then, and costs little more."""
    vectorization: Literal["sync", "batch"] = "batch"
    """Which games: the suite's own, or those of the package minatar (sync)."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "frames": self.frames})
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def runs(self) -> list[Run]:
        """One per game, agent and seed."""
        presets = [preset for base in self.bases for preset in (base, f"dvw-{base}")]
        return [self.run(game, preset, seed) for game in self.games for preset in presets for seed in self.seeds]

    def run(self, game: Game, preset: str, seed: int) -> Run:
        """One of them. Whatever was published as a share of the run stays that share of it."""
        base = MINATAR[preset]
        share = self.frames / base.env_steps
        agent = cast(DQN, base.agent)
        exploration = dataclasses.replace(agent.exploration, decay_steps=max(round(share * agent.exploration.decay_steps), 1))
        run = dataclasses.replace(
            base,
            task=f"minatar-{game}",
            agent=dataclasses.replace(agent, exploration=exploration),
            seed=seed,
            env_steps=self.frames,
            num_envs=self.num_envs,
            vectorization=self.vectorization,
            evaluation_interval=max(self.frames // self.evaluations, 1),
            evaluation_episodes=self.evaluation_episodes,
            checkpoint_interval=max(self.frames // 10, 1),
        )
        return debug(run) if self.debug else run

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the runs and judge the claims by the last evaluations."""
        curves = workshop.train(self.runs())
        pairs: list[tuple[Game, Base]] = [(game, base) for game in self.games for base in self.bases]
        return Outcome([self.claim(game, base, curves) for game, base in pairs], curves)

    def claim(self, game: Game, base: Base, curves: Curves) -> Claim:
        """Where the weights were published to help, the intervals of the last evaluations are apart; elsewhere they are not worse."""
        task = f"minatar-{game}"
        plain, weighted = (
            interval(final_scores(curves, task, self.run(game, preset, 0).preset), task) for preset in (base, f"dvw-{base}")
        )
        before, after = PUBLISHED[game, base]
        frames = self.run(game, base, 0).env_steps
        helps = after > GAIN * before
        holds = weighted.low > plain.high if helps else weighted.high >= plain.low
        notes = [f"Scaled down ({self.scaled()})."] * bool(self.scaled())
        notes += [f"The published curves separate only after {SEPARATION:,} frames."] * (frames < SEPARATION)
        return Claim(
            sentence=f"{base.upper()} on {game.replace('_', ' ')}: {before} without and {after} with variance weights.",
            source=SOURCE,
            expected=f"after {SETTING[1]:,} frames "
            + ("higher with weights, intervals apart" if helps else "not lower with weights"),
            measured=f"after {frames:,} frames: {plain} without, {weighted} with weights",
            seeds=len(self.seeds),
            holds=holds and not self.scaled(),
            note=" ".join(notes),
        )
