"""Measurements of a run's networks (`agents.meters`) that leave the run as it was, bit for bit."""

import torch

from steelyard.agents import meters
from steelyard.agents.acting import ActingAgent
from steelyard.agents.types import Metrics
from steelyard.trainers.learner import Learner
from steelyard.trainers.samplers import Sampler


def look(agent: ActingAgent, learner: Learner, sampler: Sampler) -> Metrics:
    """All measures of the agent on a batch drawn as the next update's will be; random streams are then put back."""
    streams = {name: generator.get_state() for name, generator in agent.generators.items()}
    drawn = sampler.state_dict()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        picks = sampler.noise()
        noise = agent.draw(picks.shape[-1])
        batch = agent.prepare(learner.transfer(sampler.gather(picks)), noise)
        found = meters.measure(agent, batch, noise)
    sampler.load_state_dict(drawn)
    for name, generator in agent.generators.items():
        generator.set_state(streams[name])
    return found
