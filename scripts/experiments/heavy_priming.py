"""Heavy priming: a hundred thousand updates on the first two thousand transitions, and what undoes the damage."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from experiments.claim import Claim, Outcome, Workshop, interval, less
from experiments.metered import METERS, at, late, meters, picture
from steelyard.agents.networks import MLP
from steelyard.agents.parts import NoIntervention, Reset
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.presets import DMC
from steelyard.trainers.schedules import FixedRatio, Priming
from steelyard.trainers.shrinking import debug

Arm = Literal["none", "primed", "primed-reset", "primed-layer-norm"]
SETTING = {"seeds": 3, "steps": 30_000, "updates": 100_000, "width": 256}
"""The least at which the claims are judged."""
DAMAGED, RECOVERED, MOSTLY = 0.7, 0.85, 0.7
"""Largest share of the unprimed return of a damaged agent; least shares of one that was reset, and of one with layer normalisation."""
LOW = 0.4
"""Fraction of active units that counts as far below one half."""
SOURCE = "Nikishin et al. 2022, arXiv 2205.07802, section 3.1, and Ma et al. 2024, arXiv 2310.07418, for pixels; the state-based form is a prediction"


@dataclass(frozen=True)
class HeavyPriming:
    """Heavy priming of SAC on states: it learns late or never, a full reset undoes that, layer normalisation of the critic most of it."""

    task: str = "cartpole-swingup"
    """A dm-control task that is learned within `steps` transitions without priming."""
    arms: tuple[Arm, ...] = ("none", "primed", "primed-reset", "primed-layer-norm")
    """What is compared."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    transitions: int = 2_000
    """Random transitions before the first update."""
    updates: int = SETTING["updates"]
    """Updates on them alone."""
    steps: int = SETTING["steps"]
    """Transitions after that, with an update for each."""
    action_repeat: int = 2
    """Environment steps per transition."""
    width: int = SETTING["width"]
    """Width of the two hidden layers of actor and critic."""
    batch_size: int = 256
    """Transitions per update."""
    evaluations: int = 15
    """Evaluations in the course of a run; the mean of the last three is its score."""
    evaluation_episodes: int = 5
    """Episodes of each."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        found = {"seeds": len(self.seeds), "steps": self.steps, "updates": self.updates, "width": self.width}
        changes = less(SETTING.values(), found)
        changes += ["not all arms"] * (len(self.arms) < len(HeavyPriming().arms))
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def runs(self) -> list[Run]:
        """One per arm and seed."""
        return [self.run(arm, seed) for arm in self.arms for seed in self.seeds]

    def run(self, arm: Arm, seed: int) -> Run:
        """One of them."""
        updates = 40 if self.debug else self.updates
        hidden = MLP((self.width, self.width))
        agent = dataclasses.replace(
            DMC["sac"].agent,
            actor=hidden,
            critic=dataclasses.replace(hidden, layer_norm=arm == "primed-layer-norm"),
            batch_size=self.batch_size,
            plasticity=Reset(period=updates, times=1) if arm == "primed-reset" else NoIntervention(),
        )
        length = self.action_repeat * (self.transitions + self.steps)
        interval = max(length // self.evaluations, 1)
        run = dataclasses.replace(
            DMC["sac"],
            task=self.task,
            preset=arm,
            agent=agent,
            seed=seed,
            env_steps=length,
            action_repeat=self.action_repeat,
            # The last of the first transitions makes priming due, so that the meters of that moment are those of its end.
            random_steps=self.transitions - 1,
            schedule=FixedRatio(1.0) if arm == "none" else Priming(updates=updates),
            evaluation_interval=interval,
            evaluation_episodes=self.evaluation_episodes,
            log_interval=500 * self.action_repeat,
            meter_interval=500 * self.action_repeat,
            checkpoint_interval=max(length // 4, 1),
            threads=1,
        )
        return debug(run) if self.debug else run

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the runs and judge the claims by returns and meters."""
        runs = self.runs()
        curves = workshop.train(runs)
        units = {words: meters(workshop, runs, column) for words, column in METERS.items()}
        table: list[dict[str, object]] = [self.row(arm, curves, units) for arm in self.arms]
        pictures = {"meters": picture(workshop, runs, curves, "meters")}
        return Outcome(self.claims(curves, units), curves, tables={"arms": table}, pictures=pictures)

    def label(self, arm: Arm) -> str:
        """The arm's runs in curves."""
        return self.run(arm, 0).preset

    def primed(self, curves: Curves, arm: Arm) -> dict[int, float]:
        """A meter at the end of priming."""
        return at(curves, self.task, self.label(arm), self.action_repeat * self.transitions)

    def row(self, arm: Arm, curves: Curves, units: dict[str, Curves]) -> dict[str, object]:
        """One line of the table."""
        found: dict[str, object] = {"arm": arm, "return": str(interval(late(curves, self.task, self.label(arm)), self.task))}
        for words, values in units.items():
            found[f"{words} after priming"] = f"{mean(self.primed(values, arm)):.3f}"
            found[f"{words} at the end"] = f"{mean(at(values, self.task, self.label(arm), float('inf'))):.3f}"
        return found

    def claims(self, curves: Curves, units: dict[str, Curves]) -> list[Claim]:
        """Returns against those of the unprimed agent, and the units at the end of priming."""
        scores = {arm: late(curves, self.task, self.label(arm)) for arm in self.arms}
        if "none" not in scores:
            return []
        whole = mean(scores["none"])
        rules: dict[Arm, tuple[str, str, float, bool]] = {
            "primed": ("Heavy priming hurts badly.", "at most", DAMAGED, False),
            "primed-reset": ("A full reset after priming undoes the damage.", "at least", RECOVERED, True),
            "primed-layer-norm": ("Layer normalisation of the critic prevents most of the damage.", "at least", MOSTLY, True),
        }
        claims: list[Claim] = []
        for arm, (sentence, side, share, above) in rules.items():
            if arm in scores:
                ratio = mean(scores[arm]) / max(whole, 1e-9)
                claims.append(
                    self.claim(
                        sentence,
                        f"{side} {share:.0%} of the return without priming",
                        f"{ratio:.0%}: {interval(scores[arm], self.task)} against {interval(scores['none'], self.task)}",
                        ratio >= share if above else ratio <= share,
                    )
                )
        if "primed" in scores:
            active, dormant = (mean(self.primed(values, "primed")) for values in units.values())
            before = mean(self.primed(list(units.values())[1], "none"))
            claims.append(
                self.claim(
                    "Priming silences units of the critic.",
                    f"fraction of active units below {LOW} at its end, and more dormant units than an unprimed critic has",
                    f"active {active:.3f}; dormant {dormant:.3f} against {before:.3f}",
                    active < LOW and dormant > before,
                )
            )
        return claims

    def claim(self, sentence: str, expected: str, measured: str, holds: bool) -> Claim:
        """One claim at this scale."""
        note = f"Scaled down ({self.scaled()})." if self.scaled() else ""
        return Claim(sentence, SOURCE, expected, measured, len(self.seeds), holds and not note, note)


def mean(scores: dict[int, float]) -> float:
    """Mean over seeds."""
    return sum(scores.values()) / len(scores)
