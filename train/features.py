"""What a policy's features extractors make of the observations of a rollout."""

from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn

from .compiled.structure import is_as_written, modules_of
from .images import convolver

_OF_NATURE = (NatureCNN, nn.Sequential, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear)
"""What NatureCNN is made of."""
Read = Callable[[torch.Tensor], Any]
"""Takes the numbers of some transitions, shape (B,)."""


def reader(policy: ActorCriticPolicy, observations: Any) -> Read:
    """Return what makes features of transitions as `ActorCriticPolicy.extract_features` does.

    Args:
        policy: Has the method of stable-baselines3.
        observations: Of the whole rollout, on the policy's device: a tensor, or a dictionary.
    """
    space, normalize = policy.observation_space, policy.normalize_images
    if policy.share_features_extractor:
        return _reader(policy.features_extractor, observations, space, normalize)
    ours, its = (
        _reader(extractor, observations, space, normalize)
        for extractor in (policy.pi_features_extractor, policy.vf_features_extractor)
    )
    return lambda rows_B: (ours(rows_B), its(rows_B))


def picked(observations: Any, rows_B: torch.Tensor) -> Any:
    """Return some observations, in memory in the same order."""
    if isinstance(observations, dict):
        return {key: picked(part, rows_B) for key, part in observations.items()}
    if observations.is_contiguous():
        return observations.index_select(0, rows_B)
    return observations.permute(0, 2, 3, 1).index_select(0, rows_B).permute(0, 3, 1, 2)


def _reader(
    extractor: nn.Module, observations: Any, space: spaces.Space[Any], normalize: bool
) -> Read:
    if isinstance(space, spaces.Dict):
        if type(extractor) is CombinedExtractor and is_as_written(extractor):
            reads = [
                _reader(part, observations[key], space[key], normalize)
                for key, part in extractor.extractors.items()
            ]
            return lambda rows_B: torch.cat([read(rows_B) for read in reads], dim=1)
    elif isinstance(space, spaces.Box) and observations.device.type == "cpu":
        scale = 1 / 255 if normalize and is_image_space(space) else 1.0
        if convolve := convolver(extractor, observations, scale):
            return convolve
    if _takes_channels_last(extractor):
        observations = _laid_out(observations)

    def read(rows_B: torch.Tensor) -> Any:
        seen = preprocess_obs(picked(observations, rows_B), space, normalize_images=normalize)
        return extractor(seen)

    return read


def _takes_channels_last(extractor: nn.Module) -> bool:
    """Tell whether it is the same to an extractor how images lie: who uses `view` would fail.

    One's own says so by `channels_last = True` in its class.
    """
    if vars(type(extractor)).get("channels_last") is True:
        return True
    return (
        type(extractor) is NatureCNN
        and all(type(module) in _OF_NATURE for module in modules_of(extractor))
        and is_as_written(extractor)
    )


def _laid_out(observations: Any) -> Any:
    """Return the same observations, images on the CPU with a pixel's channels side by side."""
    if isinstance(observations, dict):
        return {key: _laid_out(part) for key, part in observations.items()}
    if observations.dim() != 4 or observations.device.type != "cpu":
        return observations
    return observations.contiguous(memory_format=torch.channels_last)
