"""The batched games play as the package's do, given the same actions and the same random numbers: what is seen, the reward, the end."""

import numpy as np
import pytest
import torch

from steelyard.envs.minatar import GAMES, Settings
from steelyard.envs.minatar.batch import MinAtarBatch
from steelyard.envs.minatar.game import FIRE, LEFT, RIGHT, UP

minatar = pytest.importorskip("minatar")

NAMES = {
    "spawn_interval": ("spawn_speed", "e_spawn_speed"),
    "move_interval": ("move_speed", "enemy_move_interval"),
    "ramp_timer": ("ramp_timer",),
    "ramps": ("ramp_index",),
    "steps_left": ("terminate_timer",),
    "bricks": ("brick_map",),
    "aliens": ("alien_map",),
    "oxygen": ("oxygen",),
    "aboard": ("diver_count",),
    "shot_timer": ("shot_timer",),
}
"""What the package calls some of the states' fields."""


class Feed:
    """Stands in for the package's generator: hands out given uniform numbers in the order in which it is asked."""

    def __init__(self):
        self.numbers = []

    def rand(self, count=None):
        if count is not None:
            return np.array([self.rand() for _ in range(count)])
        number, *self.numbers = self.numbers
        return number

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        drawn = [low + int(self.rand() * (high - low)) for _ in range(size or 1)]
        return np.array(drawn) if size else drawn[0]


class Original:
    """One world of the package that plays with the random numbers of a batched world."""

    def __init__(self, task, settings):
        name = task.removeprefix("minatar-")
        world = minatar.Environment(name, sticky_action_prob=settings.sticky, difficulty_ramping=settings.ramping)
        self.world, self.game, self.feed = world, world.env, Feed()
        world.random = world.env.random = self.feed

    def reset(self, start):
        self.feed.numbers = start
        self.world.reset()

    def act(self, action, sticky, step):
        if hasattr(self.game, "divers") and self.game.e_spawn_timer > 0:
            step = step[3:]  # no enemy is drawn, perhaps a diver
        self.feed.numbers = [sticky, *step]
        return self.world.act(action)

    def picture(self):
        return self.world.state().transpose(2, 0, 1).ravel()


class Match:
    """A batch of worlds and their originals, which play side by side."""

    def __init__(self, task, worlds, *, settings=None, immortal=False, **fields):
        """`immortal`: both play on when the game is over, which leads to rare situations. `fields` of the state are set in both."""
        self.over = torch.zeros(worlds, dtype=torch.bool)
        settings = settings or Settings(time_limit=None)
        self.batch = MinAtarBatch(task, worlds, settings=settings)
        self.originals = [Original(task, settings) for _ in range(worlds)]
        self.immortal = immortal
        obs = self.batch.reset(seed=3)
        *_, start = self.batch._draws(self.batch._worlds.key, self.batch._worlds.clock)
        for original, draws in zip(self.originals, start.tolist(), strict=True):
            original.reset(draws)
        assert np.array_equal(obs, self.pictures())
        for field, value in fields.items():
            self.set(field, value)
        if immortal:
            rules = self.batch._game.step

            def step(state, action, draws):
                state, reward, self.over = rules(state, action, draws)
                return state, reward, torch.zeros_like(self.over)

            self.batch._game.step = step

    def set(self, field, value):
        worlds = self.batch._worlds
        old = getattr(worlds.state, field)
        new = torch.as_tensor(value).to(old.dtype).expand_as(old)
        self.batch._worlds = worlds._replace(state=worlds.state._replace(**{field: new}))
        for original in self.originals:
            for name in NAMES[field]:
                if hasattr(original.game, name):
                    setattr(original.game, name, np.array(value, float) if new.ndim > 1 else value)

    def state(self):
        return self.batch._worlds.state

    def pictures(self):
        return np.stack([original.picture() for original in self.originals])

    def play(self, steps, policy=None):
        """Compare `steps` steps; `policy` gives the numbers of the actions. Returns rewards [steps, worlds] and how often a game was over."""
        generator = torch.Generator().manual_seed(0)
        rewards, ended = [], 0
        for index in range(steps):
            choice = torch.randint(6, (self.batch.num_envs,), generator=generator)
            choice = choice if policy is None else policy(choice, generator)
            sticky, events, start = self.batch._draws(self.batch._worlds.key, self.batch._worlds.clock + 1)
            step = self.batch.step(torch.nn.functional.one_hot(choice, 6).float())
            played = zip(self.originals, choice.tolist(), sticky.tolist(), events.tolist(), strict=True)
            results = [original.act(action, repeat, draws) for original, action, repeat, draws in played]
            over = np.array([over for _, over in results])
            assert step.reward.tolist() == [reward for reward, _ in results], index
            assert np.array_equal(self.over if self.immortal else step.terminated, over), index
            assert np.array_equal(step.next_obs, self.pictures()), index
            for world, original in enumerate(self.originals):
                original.game.terminal = False
                if over[world] and not self.immortal:
                    original.reset(start[world].tolist())
            assert np.array_equal(step.obs, self.pictures()), index
            rewards.append(step.reward)
            ended += int(over.sum())
        return torch.stack(rewards), ended


def mostly(action, share=0.7):
    """A policy that takes one action most of the time."""

    def policy(choice, generator):
        return torch.where(torch.rand(choice.shape, generator=generator) < share, action, choice)

    return policy


@pytest.mark.parametrize("task", GAMES)
def test_random_play(task):
    _, ended = Match(task, 16).play(250)
    assert ended > 0 or task == "minatar-freeway"


@pytest.mark.parametrize("task", GAMES)
def test_without_repeated_actions(task):
    Match(task, 4, settings=Settings(sticky=0.0, time_limit=None)).play(60)


def test_breakout_with_a_few_bricks_left():
    bricks = np.zeros((10, 10))
    bricks[3, 2:5] = bricks[2, 6] = 1
    match = Match("minatar-breakout", 8, bricks=bricks)

    def follow(choice, generator):
        state = match.state()
        target = state.column + state.right * (torch.rand(8, generator=generator) < 0.5)
        towards = torch.where(target < state.paddle, LEFT, RIGHT)
        return torch.where(target == state.paddle, 0, towards)

    rewards, _ = match.play(250, follow)
    assert rewards.sum(0).max() > 4  # the wall was built anew


@pytest.mark.parametrize("ramping", [True, False])
def test_asterix_gets_as_hard_as_it_can(ramping):
    settings = Settings(ramping=ramping, time_limit=None)
    match = Match("minatar-asterix", 8, settings=settings, immortal=True, spawn_interval=3, move_interval=3, ramp_timer=5)
    rewards, _ = match.play(450 if ramping else 150)
    assert rewards.sum() > 20
    assert (match.state().spawn_interval == (1 if ramping else 3)).all()
    assert (match.state().move_interval == (1 if ramping else 3)).all()


def test_freeway_to_the_top_and_to_the_end():
    rewards, ended = Match("minatar-freeway", 8, steps_left=280).play(300, mostly(UP, 0.9))
    assert rewards.sum() > 5
    assert ended == 8


@pytest.mark.parametrize("ramping", [True, False])
def test_seaquest_comes_up_often(ramping):
    """The submarine fills up with divers below, comes up, goes down again; many times, on and on, whatever it meets."""
    settings = Settings(ramping=ramping, time_limit=None)
    match = Match("minatar-seaquest", 8, settings=settings, immortal=True, spawn_interval=9, move_interval=4)
    rewards = [match.play(40)[0]]
    for aboard in (6, 2, 6, 5, 0, 6, 3):
        match.set("aboard", aboard)
        match.set("oxygen", 60 + 20 * aboard)
        rewards += [match.play(25)[0], match.play(12, mostly(UP, 0.9))[0]]
    assert torch.cat(rewards).max() > 5
    assert (match.state().ramps > 3).all() == ramping
    assert (match.state().move_interval < 4).any() == ramping


def test_seaquest_runs_out_of_oxygen():
    _, ended = Match("minatar-seaquest", 8, oxygen=12).play(40)
    assert ended > 5


@pytest.mark.parametrize("one_side", [False, True])
def test_seaquest_at_its_hardest(one_side, monkeypatch):
    """An enemy in every step; if all come from one side, none of them is turned away, and there are as many as there can be."""
    match = Match("minatar-seaquest", 8, immortal=True, spawn_interval=1, move_interval=2)
    drawn = match.batch._draws

    def draws(key, clock):
        sticky, step, start = drawn(key, clock)
        return sticky, torch.where(torch.arange(5) == 0, 0.1, step) if one_side else step, start

    monkeypatch.setattr(match.batch, "_draws", draws)
    rewards, most = [], 0
    for _ in range(10):
        rewards.append(match.play(25)[0])
        columns = match.state().enemies[:, 0]
        most = max(most, int(((columns >= 0) & (columns < 10)).sum(1).max()))
    assert torch.cat(rewards).sum() > 40
    assert most > (27 if one_side else 15)


def place(match, enemies=(), divers=(), bullets=()):
    """Put swimmers and bullets into all worlds of both forms, the newest first; fields are in the order of the batched state."""
    state = match.state()
    new = {}
    for name, entries in (("enemies", enemies), ("divers", divers), ("bullets", bullets)):
        lists = getattr(state, name).clone()
        for slot, entry in enumerate(entries):
            lists[:, : len(entry), slot] = torch.tensor(entry, dtype=lists.dtype)
        new[name] = lists
    match.batch._worlds = match.batch._worlds._replace(state=state._replace(**new))
    for original in match.originals:
        game = original.game
        for x, y, right, submarine, timer, torpedo in reversed(enemies):
            if submarine:
                game.e_subs.append([x, y, right > 0, timer, torpedo])
            else:
                game.e_fish.append([x, y, right > 0, timer])
        game.divers += [[x, y, right > 0, timer] for x, y, right, timer in reversed(divers)]
        game.f_bullets += [[x, y, right > 0] for x, y, right in reversed(bullets)]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_seaquest_rare_meetings(steps):
    """Both forms from situations that take long to come about by themselves."""
    match = Match("minatar-seaquest", 4, settings=Settings(sticky=0.0, time_limit=None), immortal=True, aboard=5)
    match.play(steps, lambda choice, generator: choice % FIRE)  # no shot, so that there is room for two bullets
    (row, column), *_ = torch.stack([match.state().row, match.state().column], 1).tolist()
    place(
        match,
        enemies=[(4, 6, 1, 1, 0, 0), (9, 5, 1, 1, 0, 0), (7, 7, -1, 0, 3, 0), (7, 7, -1, 0, 2, 0), (7, 7, -1, 1, 1, 4)],
        divers=[(column - 1, row, 1, 0), (column + 1, row, -1, 0)],
        bullets=[(4, 6, 1), (6, 7, 1)],
    )
    match.set("shot_timer", 5)  # two bullets are in the field, so the last shot was fired just now
    match.play(12)


@pytest.mark.parametrize("ramping", [True, False])
def test_space_invaders_gets_as_hard_as_it_can(ramping):
    settings = Settings(ramping=ramping, time_limit=None)
    match = Match("minatar-space_invaders", 8, settings=settings, immortal=True, move_interval=7)
    few = np.zeros((10, 10))
    few[0:2, 4:6] = 1
    rewards = []
    for _ in range(4):
        match.set("aliens", few)
        rewards.append(match.play(100, mostly(FIRE, 0.3))[0])
    assert torch.cat(rewards).sum(0).max() > 10
    assert match.state().move_interval.min() == (6 if ramping else 7)


def test_space_invaders_come_down():
    match = Match("minatar-space_invaders", 4, immortal=True, move_interval=3)
    match.play(200, mostly(LEFT, 1.0))
    mortal = Match("minatar-space_invaders", 4, move_interval=3)
    _, ended = mortal.play(200, mostly(RIGHT, 0.9))
    assert ended >= 4
