"""Random streams go on where a checkpoint has them, if it is of this kind of device."""

import pytest
import torch

from steelyard.agents.random_streams import SIZES, resume


def test_a_stream_goes_on() -> None:
    first, second = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    torch.rand(3, generator=first)
    resume(second, first.get_state())
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


def test_a_state_of_another_device_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    assert generator.get_state().numel() == SIZES["cpu"]
    resume(generator, torch.zeros(SIZES["cuda"], dtype=torch.uint8))
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(RuntimeError):
        resume(torch.Generator(), torch.zeros(7, dtype=torch.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_states_of_a_gpu() -> None:
    host, gpu = torch.Generator(), torch.Generator("cuda").manual_seed(1)
    state = gpu.get_state()
    assert state.numel() == SIZES["cuda"]
    resume(host, state)
    resume(gpu, host.get_state())
    assert torch.equal(gpu.get_state(), state)
