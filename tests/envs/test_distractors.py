"""Distractors: their dynamics, the contract, and that training and evaluation meet the same."""

import pytest
import torch

from steelyard import envs
from steelyard.envs import EnvError, check_contract
from steelyard.envs.distractors import Distracted, SwitchingChaos


def test_the_dynamics_by_hand() -> None:
    chaos = SwitchingChaos(2, seed=5)
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    r = (10 * torch.randn(2, 2, generator=generator, dtype=torch.float64)) ** 2
    c = torch.randn(2, generator=generator, dtype=torch.float64)
    z = torch.tensor([0.3, -0.2], dtype=torch.float64)
    moved = [a[j, 0] * z[0] + a[j, 1] * z[1] for j in range(2)]
    expected = [moved[i] + 0.1 * torch.sin(r[i, 0] * moved[0] + r[i, 1] * moved[1]) for i in range(2)]
    torch.testing.assert_close(chaos.advance(z[None])[0], torch.stack(expected))
    large = torch.tensor([[1e4, 1e4]], dtype=torch.float64)
    torch.testing.assert_close(chaos.advance(large)[0], c)


def test_the_system_is_chaotic_and_bounded() -> None:
    chaos = SwitchingChaos(10)
    generator = torch.Generator().manual_seed(0)
    z = 0.1 * torch.randn(200, 10, generator=generator, dtype=torch.float64)
    changes = []
    for _ in range(50):
        after = chaos.advance(z)
        changes.append(after - z)
        z = after
    assert float(z.abs().max()) <= 20
    assert 7 < float(torch.cat(changes[10:]).std()) < 16


@pytest.mark.parametrize("task", ["probe-observation", "Pendulum-v1", "Hopper-v5", "cartpole-swingup"])
def test_the_contract_is_kept(task: str) -> None:
    env = Distracted(envs.make(task, 2), 4)
    assert env.spec.obs_size == env.env.spec.obs_size + 4
    check_contract(env, steps=300 if task != "cartpole-swingup" else 1020)
    env.close()


def test_the_worlds_own_part_is_as_without() -> None:
    plain, distracted = envs.make("Hopper-v5", 2), envs.make("Hopper-v5", 2, distractors=3)
    assert torch.equal(plain.reset(seed=4), distracted.reset(seed=4)[:, :11])
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        action = plain.spec.random_action(2, generator)
        step, other = plain.step(action), distracted.step(action)
        assert torch.equal(step.next_obs, other.next_obs[:, :11])
        assert torch.equal(step.obs, other.obs[:, :11])
        assert torch.equal(step.reward, other.reward)


def test_dynamics_are_shared_and_advance_on_reset() -> None:
    """An observation's distractors follow from those before it by the same map, in training's worlds and in evaluation's."""
    for seed in (0, 1_000_000_000):
        env = Distracted(envs.make("probe-discount", 3), 5)
        start = env.reset(seed=seed)[:, 1:]
        torch.testing.assert_close(start, SwitchingChaos(5).advance(env.starts()).float())
        assert float(env.starts().abs().max()) < 0.5
        z = start
        for count in range(1, 12):
            step = env.step(torch.zeros(3, 1))
            torch.testing.assert_close(step.next_obs[:, 1:], env.system.advance(z.double()).float(), rtol=0.3, atol=0.5)
            if count % 2 == 0:
                torch.testing.assert_close(step.obs[:, 1:], env.system.advance(env.starts()).float())
                assert not torch.equal(step.obs[:, 1:], step.next_obs[:, 1:])
            z = env.z


def test_worlds_and_episodes_start_apart() -> None:
    env = Distracted(envs.make("probe-constant", 3), 5)
    first = env.reset(seed=0)
    second = env.step(torch.zeros(3, 1)).obs
    assert len({tuple(row.tolist()) for row in torch.cat((first, second))}) == 6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(EnvError, match="distractors is -1"):
        envs.make("Pendulum-v1", 1, distractors=-1)
    with pytest.raises(EnvError, match="distractors is 100,000; give one to 1,000"):
        envs.make("Pendulum-v1", 1, distractors=100_000)
    with pytest.raises(EnvError, match="pictures"):
        envs.make("minatar-breakout", 1, vectorization="batch", distractors=3)
    env = Distracted(envs.make("probe-constant", 3), 5)
    other = Distracted(envs.make("probe-constant", 3), 4).state_dict()
    assert other is not None
    with pytest.raises(EnvError, match="use the same numbers"):
        env.load_state_dict(other)
