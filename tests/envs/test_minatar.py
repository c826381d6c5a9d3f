"""MinAtar's games in both forms: the contract, seeds, time limits, actions, pictures, and what they say when they cannot be made."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from steelyard.envs import EnvError, check_contract, known_tasks, make
from steelyard.envs.draws import uniform
from steelyard.envs.edge import Choices
from steelyard.envs.minatar import GAMES, Settings
from steelyard.envs.minatar.batch import MinAtarBatch
from steelyard.envs.minatar.game import FIRE, LEFT, RIGHT
from steelyard.envs.minatar_envs import MinAtarEnv

FORMS = ("sync", "batch")
CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}
STARTS_AT_RANDOM = ("minatar-freeway",)
"""Games whose first observation tells the seed; Breakout has two, and the others one."""


def build(form, task, num_envs, **options):
    if form == "batch":
        return MinAtarBatch(task, num_envs, **options)
    pytest.importorskip("minatar")
    return MinAtarEnv(task, num_envs, **options)


def random_play(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [env.step(env.spec.random_action(env.num_envs, generator)) for _ in range(steps)]


@pytest.mark.parametrize("task", GAMES)
@pytest.mark.parametrize("form", FORMS)
def test_the_contract(form, task):
    env = build(form, task, 3, settings=Settings(time_limit=70))
    check_contract(env, steps=150, deterministic=task not in STARTS_AT_RANDOM)


@pytest.mark.parametrize("task", GAMES)
@pytest.mark.parametrize("form", FORMS)
def test_make(form, task):
    if form == "sync":
        pytest.importorskip("minatar")
    env = make(task, 2, vectorization=form, render_size=30)
    channels = CHANNELS[task.removeprefix("minatar-")]
    assert (env.spec.obs_size, env.spec.action_size, env.spec.horizon) == (100 * channels, 6, 10_000)
    assert (env.spec.discrete, env.spec.can_terminate, env.spec.picture) == (True, True, (channels, 10, 10))
    assert env.reset(seed=0).unique().tolist() == [0, 1]
    assert env.render().shape == (30, 30, 3)
    assert task in known_tasks()


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("minatar-breakin", {}, "the games of MinAtar are minatar-asterix, minatar-breakout"),
        ("mintar-breakout", {}, "did you mean minatar-breakout"),
        ("minatar-breakout", {"vectorization": "async"}, "use 'sync' or 'batch'"),
        ("minatar-breakout", {"action_repeat": 4}, "use action_repeat=1"),
    ],
)
def test_refusals_are_one_sentence(task, options, sentence):
    with pytest.raises(EnvError, match=sentence) as caught:
        make(task, 2, **options)
    assert "\n" not in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(EnvError, match=r"pip install 'steelyard\[minatar\]'"):
        make("minatar-breakout", 1)
    assert make("minatar-breakout", 1, vectorization="batch").num_envs == 1


@pytest.mark.parametrize("task", GAMES)
@pytest.mark.parametrize("form", FORMS)
def test_a_world_depends_on_its_own_seed_alone(form, task):
    many, one = build(form, task, 5), build(form, task, 1)
    many.reset(seed=10)
    one.reset(seed=13)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        action = many.spec.random_action(5, generator)
        ours, alone = many.step(action), one.step(action[3:4])
        for field in ("obs", "next_obs", "reward", "terminated"):
            assert torch.equal(getattr(ours, field)[3:4], getattr(alone, field)), field


@pytest.mark.parametrize("task", GAMES)
@pytest.mark.parametrize("form", FORMS)
def test_seeds_give_games_of_their_own(form, task):
    """The same actions for all, and yet another game in each world, since actions are repeated at random if nothing else is."""
    env = build(form, task, 4)
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(60):
        seen.append(env.step(env.spec.random_action(1, generator).expand(4, -1)).obs)
    games = torch.stack(seen, 1).flatten(1)
    assert len(games.unique(dim=0)) == 4
    env.reset()
    later = torch.stack([step.obs for step in random_play(env, 60)], 1).flatten(1)
    env.reset()
    assert not torch.equal(later, torch.stack([step.obs for step in random_play(env, 60)], 1).flatten(1))


@pytest.mark.parametrize("form", FORMS)
def test_a_time_limit_cuts_and_another_episode_starts(form):
    env = build(form, "minatar-freeway", 2, settings=Settings(time_limit=9))
    env.reset(seed=0)
    steps = random_play(env, 20)
    assert [bool(step.truncated[0]) for step in steps] == [index in (8, 17) for index in range(20)]
    assert not any(step.terminated.any() for step in steps)
    assert (steps[8].obs != steps[8].next_obs).any()
    cars = steps[8].obs.view(2, 7, 10, 10)[:, 1]
    assert cars[:, 1:9, 0].all()  # a new episode's cars stand in the first column


def test_no_time_limit():
    env = MinAtarBatch("minatar-freeway", 1, settings=Settings(time_limit=None))
    assert env.spec.horizon is None
    assert not any(step.truncated.any() for step in random_play(env, 20))


@pytest.mark.parametrize("form", FORMS)
def test_minimal_actions_are_those_that_do_something(form):
    env = build(form, "minatar-space_invaders", 1, settings=Settings(minimal_actions=True, sticky=0.0))
    full = build(form, "minatar-space_invaders", 1, settings=Settings(sticky=0.0))
    assert env.spec.action_size == 4
    for few, action in enumerate((0, LEFT, RIGHT, FIRE)):
        env.reset(seed=0)
        full.reset(seed=0)
        ours, theirs = torch.eye(4)[few : few + 1], torch.eye(6)[action : action + 1]
        assert torch.equal(env.step(ours).obs, full.step(theirs).obs)


@pytest.mark.parametrize("form", FORMS)
def test_the_last_action_is_sometimes_repeated(form):
    """Left at first; then right, which a world that repeats itself does not do."""
    env = build(form, "minatar-space_invaders", 2000)
    left, right = (torch.eye(6)[action].expand(2000, -1) for action in (LEFT, RIGHT))
    env.reset(seed=0)
    env.step(left)
    cannon = env.step(right).obs.view(2000, 6, 10, 10)[:, 0, 9].argmax(1)
    repeated = (cannon < 5).float().mean()  # at 3 (left, left), or at 4 (stay, stay)
    assert 0.07 < repeated < 0.13


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_forgets_the_last_action(form):
    env = build(form, "minatar-space_invaders", 50, settings=Settings(sticky=0.5))
    left, right = (torch.eye(6)[action].expand(50, -1) for action in (LEFT, RIGHT))
    env.reset(seed=0)
    first = env.step(right).obs
    env.step(left)
    env.step(left)
    env.reset(seed=0)
    assert torch.equal(env.step(right).obs, first)


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_state_is_plain_data_for_another_environment(form):
    env, other = build(form, "minatar-seaquest", 2), build(form, "minatar-seaquest", 2)
    env.reset(seed=0)
    random_play(env, 40)
    state, file = env.state_dict(), io.BytesIO()
    assert state is not None
    torch.save(state, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for ours, theirs in zip(random_play(env, 150, seed=1), random_play(other, 150, seed=1), strict=True):
        assert torch.equal(ours.obs, theirs.obs)
        assert torch.equal(ours.terminated, theirs.terminated)
    with pytest.raises(EnvError, match="2 worlds was saved and there are 3"):
        build(form, "minatar-seaquest", 3).load_state_dict(state)


@pytest.mark.parametrize("task", GAMES)
def test_both_forms_draw_the_same_picture(task):
    pictures = [build(form, task, 2, render_size=50) for form in FORMS]
    for env in pictures:
        env.reset(seed=1)
    first, second = (env.render() for env in pictures)
    assert first.shape == (50, 50, 3)
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 1
    assert np.array_equal(first, second) or task in ("minatar-freeway", "minatar-breakout")  # their starts are drawn


@pytest.mark.parametrize("task", GAMES)
def test_a_step_is_one_graph_whatever_the_number_of_worlds(task):
    """Tracing with tensors that have no values fails where a value is read; and as many operations serve any number of worlds."""
    sizes = set()
    for num_envs in (2, 5):
        env = MinAtarBatch(task, num_envs)
        generator = torch.Generator().manual_seed(0)
        for _ in range(25):
            env.step(env.spec.random_action(num_envs, generator))
        given = (env._worlds, env.spec.random_action(num_envs, generator))
        graph = make_fx(step_of(env), tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
        sizes.add(len(graph.graph.nodes))
        traced, expected = graph(*given), step_of(env)(*given)
        assert all(map(torch.equal, traced, expected))
        before = [*given[0][:4], *given[0].state]
        assert [part.dtype for part in expected[: len(before)]] == [part.dtype for part in before]
    assert len(sizes) == 1


def step_of(env):
    """A function of worlds and actions that returns all tensors of the next worlds and of the step, flat."""

    def advance(worlds, action):
        worlds, step = env.advance(worlds, action)
        return [*worlds[:4], *worlds.state, *step[:6]]

    return advance


def test_draws_are_uniform_and_independent():
    draws = uniform(torch.arange(2000), torch.full((2000,), 7), 5)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 0.02
    assert (draws.std(0) - 12**-0.5).abs().max() < 0.01
    later = uniform(torch.arange(2000), torch.full((2000,), 8), 5)
    between = torch.corrcoef(torch.cat([draws, later], 1).T) - torch.eye(10)
    assert between.abs().max() < 0.08
    neighbours = torch.corrcoef(torch.stack([draws[:-1, 0], draws[1:, 0]]))[0, 1]
    assert neighbours.abs() < 0.08


def test_the_largest_draw_chooses_nothing_beyond_the_last():
    from steelyard.envs.minatar.game import choose

    largest = torch.tensor([1 - 2.0**-23])
    assert [int(choose(largest, count)) for count in range(1, 9)] == list(range(8))


class Lenient(Choices):
    """Refuses fewer actions than it should."""

    def __init__(self, accepts):
        super().__init__("lenient", start=0)
        self._accepts = accepts

    def to_world(self, action):
        if not self._accepts(action):
            raise EnvError("refused")
        return action.argmax(1)


@pytest.mark.parametrize(
    ("accepts", "sentence"),
    [
        (lambda action: True, "choose nothing"),
        (lambda action: (action.sum(1) > 0).all(), "choose twice"),
        (lambda action: (action.sum(1) == 1).all(), "choose by halves"),
    ],
)
def test_the_checker_asks_for_choices(accepts, sentence):
    env = MinAtarBatch("minatar-breakout", 2)
    env._choices = Lenient(accepts)
    with pytest.raises(EnvError, match=sentence):
        check_contract(env, deterministic=True)


def test_the_checker_compares_the_picture_with_the_observation():
    env = MinAtarBatch("minatar-breakout", 2)
    env.spec = replace(env.spec, picture=(3, 10, 10))
    with pytest.raises(EnvError, match="300 cells"):
        check_contract(env, deterministic=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("task", GAMES)
def test_on_a_gpu_the_same_games_are_played(task):
    here, there = MinAtarBatch(task, 3), MinAtarBatch(task, 3, device="cuda")
    check_contract(there, steps=150, deterministic=task not in STARTS_AT_RANDOM)
    assert torch.equal(here.reset(seed=0), there.reset(seed=0).cpu())
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        action = here.spec.random_action(3, generator)
        assert torch.equal(here.step(action).obs, there.step(action.cuda()).obs.cpu())
