"""The adaptive ratio switches where the published rule says, on the agent's very batches, and continues exactly."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents import meters
from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Spec, Step
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.capture import Launches
from steelyard.trainers.config import Run
from steelyard.trainers.learner import Learner
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.schedules import Priming, ScheduleError

QUADRUPED = [0.500, 0.431, 0.389, 0.372, 0.3725, 0.398, 0.431, 0.455, 0.4655, 0.4662, 0.4661]
"""A dip and a recovery with the shape and the sizes of figure 6 in Ma et al. (2024)."""


SPEC = Spec(3, 2)


def build(config: Any, spec: Spec = SPEC) -> Any:
    return config.build(spec, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False))


def learner(agent: Any, folder: Path) -> Learner:
    generator = torch.Generator().manual_seed(0)
    buffer = ReplayBuffer(agent.spec, 100)
    obs, no = torch.zeros(1, 3), torch.zeros(1, dtype=torch.bool)
    for _ in range(50):
        after = torch.randn(1, 3, generator=generator)
        reward = torch.randn(1, generator=generator)
        buffer.add(obs, agent.spec.random_action(1, generator), Step(after, after, reward, no, no, ~no, {}))
        obs = after
    return Learner(agent, Uniform().build(buffer, 8, 1, 0.9, 7), folder)


@pytest.mark.parametrize(
    ("rule", "index"),
    [
        (AdaptiveRatio(), 4),  # the published rule fires at a flat minimum
        (AdaptiveRatio(margin=0.02), 9),
        (AdaptiveRatio(checks=5), 9),
        (AdaptiveRatio(margin=0.2), None),
        (AdaptiveRatio(threshold=0.0002), 10),
        (AdaptiveRatio(threshold=0.07), 1),
        (AdaptiveRatio(threshold=0.03, checks=3), 3),
    ],
)
def test_a_stored_series_replays_to_the_same_switch(rule: AdaptiveRatio, index: int | None) -> None:
    assert rule.switch_index(QUADRUPED) == index


def test_the_schedule_follows_the_rule_on_a_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series of one value for each interval, seen through updates as a run makes them."""
    schedule = AdaptiveRatio(interval=10, window=4, low=0.5, high=2, margin=0.02).build()
    values = iter(QUADRUPED)
    current = [next(values)]
    monkeypatch.setattr("steelyard.trainers.adaptive_ratio.critic_activities", lambda *_: [])
    monkeypatch.setattr("steelyard.trainers.adaptive_ratio.active_share", lambda _: torch.tensor(current[0]))
    made, news, count = [], [], 0
    for transition in range(1, 121):
        due = schedule.updates(1)
        news.append(schedule.news())
        if (transition - 1) % 10 == 0 and transition > 1:
            made.append(0)
        for _ in range(due):
            count += 1
            if schedule.watches(count):
                assert count == 1 or (transition - 1) % 10 >= 6
                schedule.watch(None, None, None)  # pyright: ignore
            if count == 1:
                current[0] = next(values)
        if transition % 10 == 0:
            current[0] = next(values, current[0])
    # Nine intervals at a half, of which the check is made before the first update of the tenth; then two.
    assert schedule.switched_at == 90
    assert count == 45 + 60
    assert schedule.series == pytest.approx([*QUADRUPED, QUADRUPED[-1]][: len(schedule.series)])
    assert [n for n, line in enumerate(news, 1) if line] == [91]
    assert "update ratio 0.5 -> 2" in next(filter(None, news))
    found = schedule.diagnostics()
    assert (found["schedule/ratio"], found["schedule/switched_at"]) == (2, 90)


@pytest.mark.parametrize(("window", "shown"), [(3, [1, 8, 9, 10, 18, 19, 20]), (10, list(range(1, 21)))])
def test_batches_are_those_of_the_window_before_their_updates(window: int, shown: list[int], tmp_path: Path) -> None:
    agent = build(SAC(actor=MLP((8,)), critic=MLP((8, 8))))
    schedule, learning = AdaptiveRatio(low=1, high=3, interval=10, window=window, threshold=0).build(), learner(agent, tmp_path)
    schedule.begin(agent)
    learning.watchers = (schedule,)
    twin = build(SAC(actor=MLP((8,)), critic=MLP((8, 8))))
    plain = learner(twin, tmp_path)
    expected, seen = [], []
    for transition in range(1, 21):
        assert schedule.updates(1) == 1
        if schedule.watches(transition):
            seen.append(transition)
        before = schedule.measured
        learning.update(1)
        assert schedule.measured in (before, before + 1)
        picks, noise = plain.sampler.noise(), twin.draw(8)
        batch = twin.prepare(plain.sampler.gather(picks), noise)
        with torch.no_grad():
            first = twin.critic.body.layers[0](torch.cat((batch.obs, batch.action), -1)).relu()
            second = twin.critic.body.layers[1](first).relu()
        expected.append(float(torch.cat((first.flatten(), second.flatten())).gt(0).double().mean()))
        twin.run_update(twin.advance(), plain.sampler.gather(picks), noise)
    assert seen == shown
    schedule.updates(1)
    second_window = [value for number, value in enumerate(expected, 1) if number in shown and number > 10]
    first_window = [value for number, value in enumerate(expected, 1) if number in shown[window < 10 :] and number <= 10]
    means = [sum(first_window) / len(first_window), sum(second_window) / len(second_window)]
    assert schedule.series == pytest.approx([expected[0], *means], abs=1e-6)
    for (name, p), (_, q) in zip(agent.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(p, q), name  # watching changed nothing


def test_an_interval_without_a_measurement_is_no_check() -> None:
    schedule = AdaptiveRatio(interval=10, window=1, low=0.01).build()
    schedule.first = torch.tensor(0.5)
    for _ in range(50):
        schedule.updates(1)
    assert schedule.series == []
    assert schedule.switched_at is None


def test_many_worlds_jump_over_several_intervals() -> None:
    schedule = AdaptiveRatio(interval=10, window=10, low=1).build()
    schedule.updates(64)
    assert schedule.in_window
    schedule.updates(64)
    assert schedule.start == 60


def test_saved_and_continued_in_the_middle_of_a_window(tmp_path: Path) -> None:
    config = AdaptiveRatio(low=1, high=3, interval=8, window=5, threshold=0.5)
    agent = build(TD3(actor=MLP((8,)), critic=MLP((8,))))
    whole, learning = config.build(), learner(agent, tmp_path)
    learning.watchers = (whole,)
    for transition in range(1, 8):
        learning.update(whole.updates(1))
        if transition == 6:
            state = whole.state_dict()
            resumed = config.build()
            resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert (state["measured"], state["series"]) == (3, [])
    learning.update(whole.updates(1))
    learning.update(whole.updates(1))
    assert whole.switched_at == 8
    assert whole.series[0] == pytest.approx(state["first"])
    later = config.build()
    later.load_state_dict(whole.state_dict())
    assert later.ratio == 3
    assert later.news() == whole.news()
    assert [later.updates(1) for _ in range(4)] == [whole.updates(1) for _ in range(4)] == [3] * 4


def test_a_launch_ends_before_an_update_that_is_watched(tmp_path: Path) -> None:
    """Several updates in one captured graph leave no place to look in between."""
    agent = build(SAC(actor=MLP((8,)), critic=MLP((8,))))
    learning = learner(agent, tmp_path)
    seen: list[int] = []

    class Watch:
        def watches(self, update: int) -> bool:
            return update in (4, 5, 30)

        def watch(self, agent: Any, batch: Any, noise: Any) -> None:
            seen.append(agent.update_count + 1)

    learning.watchers = (Watch(),)
    launches = Launches.__new__(Launches)
    launches.run = learning.apply
    sizes: list[int] = []
    launches.launch = lambda pattern, picks, noise: sizes.append(len(pattern)) or launches.sequence(pattern, picks, noise)  # type: ignore
    launches.update(learning, 40)
    assert (seen, sizes) == ([4, 5, 30], [3, 1, 1, 16, 8, 1, 10])
    twin = build(SAC(actor=MLP((8,)), critic=MLP((8,))))
    learner(twin, tmp_path).update(40)
    for (name, p), (_, q) in zip(agent.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize(
    ("critic", "meter", "message"),
    [
        (SimbaV2(8, 1), "active", "use --schedule.meter dormant"),
        (MLP((8,), activation="silu"), "active", "use --schedule.meter dormant"),
        (MLP((8,), layer_norm=True, norm_after=True), "active", "use --schedule.meter dormant"),
        (MLP((8,), activation="crelu"), "active", "use a fixed ratio"),
        (MLP((8,), activation="crelu"), "dormant", "use a fixed ratio"),
        (MLP(()), "dormant", "use a fixed ratio"),
    ],
)
def test_critics_without_a_meaning_are_refused(critic: Any, meter: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        AdaptiveRatio(meter=meter).build().begin(build(SAC(actor=MLP((8,)), critic=critic)))


@pytest.mark.parametrize("critic", [SimbaV2(8, 1), MLP((8,), activation="tanh"), MLP((8,))])
def test_the_share_of_units_that_are_not_dormant_serves_instead(critic: Any, tmp_path: Path) -> None:
    agent = build(SAC(actor=MLP((8,)), critic=critic))
    schedule = AdaptiveRatio(low=1, interval=2, window=2, meter="dormant").build()
    schedule.begin(agent)
    learning = learner(agent, tmp_path)
    learning.watchers = (schedule,)
    batch, noise = learning.sampler.sample(), agent.draw(8)
    expected = 1 - meters.measure(agent, batch, noise)["critic/dormant"]
    schedule.watch(agent, batch, noise)
    assert float(schedule.first) == pytest.approx(float(expected))  # pyright: ignore


def test_choices_are_served_too() -> None:
    AdaptiveRatio().build().begin(build(DQN(critic=MLP((8,))), Spec(3, 2, discrete=True)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 30_000}, "window"),
        ({"low": 0}, "low is 0"),
        ({"high": -1.0}, "high"),
        ({"margin": 1.5}, "margin"),
        ({"every": 0}, "every"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        dataclasses.replace(AdaptiveRatio(), **changes)


def test_learning_rates_decay_over_what_is_sure_to_come() -> None:
    run = Run(task="Hopper-v5", agent=SAC(), preset="x", env_steps=10_000, random_steps=1_000)
    assert dataclasses.replace(run, schedule=AdaptiveRatio()).total_updates == 4_500
    assert dataclasses.replace(run, schedule=Priming(updates=100, transitions=50, ratio=2)).total_updates == 100 + 2 * 8_950


def test_priming_makes_its_updates_once_and_then_keeps_the_ratio() -> None:
    schedule = Priming(updates=50, transitions=3, ratio=0.5).build()
    made = [schedule.updates(n) for n in (0, 1, 1, 1, 1, 1, 4)]
    assert made == [0, 0, 0, 50, 0, 1, 2]
    schedule, resumed = Priming(updates=50, transitions=3).build(), Priming(updates=50, transitions=3).build()
    schedule.updates(2)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.updates(3) == schedule.updates(3) == 52
    assert resumed.updates(1) == 1
