"""What travels between a learner and remote actors arrives as it was sent."""

import torch

from steelyard.agents.types import Step
from steelyard.trainers.messages import Chunk, flatten, restore


def steps(count: int, worlds: int, dtype: torch.dtype = torch.float32):
    """Steps in which world t % worlds is reset within the call, and every third row does not count."""
    generator = torch.Generator().manual_seed(0)

    def picture() -> torch.Tensor:
        return (torch.rand(worlds, 5, generator=generator) * 100).to(dtype)

    obs, acted, stepped = picture(), [], []
    for t in range(count):
        after, action, reward = picture(), torch.rand(worlds, 2, generator=generator), torch.rand(worlds, generator=generator)
        ended = torch.arange(worlds) == t % worlds
        following = torch.where(ended[:, None], picture(), after)
        moved = torch.rand(worlds, generator=generator) > 0.2
        valid = moved & torch.tensor((t % 3) > 0)
        acted.append((obs, action, Step(following, after, reward, ended & moved, ended & ~moved, valid, {})))
        stepped.append(moved)
        obs = following
    return acted, stepped


def test_a_chunk_brings_every_step_as_it_was() -> None:
    for dtype in (torch.float32, torch.uint8):
        acted, stepped = steps(7, 3, dtype)
        chunk = Chunk.pack(acted, stepped)
        # Only what cannot be told from the next observation is sent beside it.
        assert chunk.next_obs.shape == (7, 5)
        for array in chunk:
            array.flags.writeable = False  # as Ray hands it over
        arrived, moved = chunk.unpack()
        assert len(arrived) == len(acted)
        for (obs, action, step), (obs_, action_, step_), m, m_ in zip(acted, arrived, stepped, moved, strict=True):
            assert obs_.dtype == dtype
            for sent, got in zip((obs, action, *step[:-1], m), (obs_, action_, *step_[:-1], m_), strict=True):
                assert torch.equal(sent, got)
                assert sent.dtype == got.dtype


def test_weights_of_every_dtype_are_exact() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    module.register_buffer("flag", torch.tensor([True, False, True]))
    module.register_buffer("mean", torch.tensor([1 / 3, 1e-300], dtype=torch.float64))
    module.register_buffer("halved", torch.tensor([[1.5, -2.25]], dtype=torch.bfloat16))
    content = flatten(module.state_dict())
    content.flags.writeable = False
    state = restore(content, module.state_dict())
    assert list(state) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype
        assert state[name].shape == tensor.shape
    assert flatten({}).size == 0
