"""Occupants of the agent's slots. Each slot's neutral occupant is its default, and neutral equals absent bit for bit."""

from steelyard.agents.parts.balance import Balance, Family, Fixed
from steelyard.agents.parts.calibration import Calibration, ReturnBound, Uncalibrated
from steelyard.agents.parts.cloning import ActionDistance, Cloning, NoCloning
from steelyard.agents.parts.combined import Combined
from steelyard.agents.parts.ensemble import Ensemble
from steelyard.agents.parts.improvement import Greedy, Improvement, Munchausen
from steelyard.agents.parts.injection import PlasticityInjection
from steelyard.agents.parts.model import Model, NoModel
from steelyard.agents.parts.model_objective import Likelihood, SquaredError
from steelyard.agents.parts.objective import ClippedSemiGradient, Regression, Squared
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import NoIntervention, Reset, ShrinkAndPerturb
from steelyard.agents.parts.redo import ReDo
from steelyard.agents.parts.regularizers import L2Init, SpectralRegularization
from steelyard.agents.parts.robust import AbsoluteBellman, HuberBellman
from steelyard.agents.parts.value_aware import ExactTaylor, IterVAML, ValueGradient
from steelyard.agents.parts.variance import InverseVariance
from steelyard.agents.parts.weighting import DensityRatio, Uniform, UniformWeighting

Objective = Squared | ClippedSemiGradient | HuberBellman | AbsoluteBellman
Plasticity = NoIntervention | Reset | ReDo | ShrinkAndPerturb | PlasticityInjection | L2Init | SpectralRegularization | Combined
Weighting = Uniform | DensityRatio | InverseVariance

__all__ = [
    "AbsoluteBellman",
    "ActionDistance",
    "Balance",
    "Calibration",
    "ClippedSemiGradient",
    "Cloning",
    "Combined",
    "DensityRatio",
    "Ensemble",
    "ExactTaylor",
    "Family",
    "Fixed",
    "Greedy",
    "HuberBellman",
    "Improvement",
    "InverseVariance",
    "IterVAML",
    "L2Init",
    "Likelihood",
    "Model",
    "Munchausen",
    "NoCloning",
    "NoIntervention",
    "NoModel",
    "Objective",
    "Part",
    "Plasticity",
    "PlasticityInjection",
    "ReDo",
    "Regression",
    "Reset",
    "ReturnBound",
    "ShrinkAndPerturb",
    "SpectralRegularization",
    "Squared",
    "SquaredError",
    "Uncalibrated",
    "Uniform",
    "UniformWeighting",
    "ValueGradient",
    "Weighting",
]
