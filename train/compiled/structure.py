"""Read from a policy of stable-baselines3 what kernels must know of it, or why they cannot."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn
from torch.nn.modules import module as all_modules
from torch.optim import optimizer as all_optimizers

from ...envs.direct import is_compiled
from .network import INPUTS, OUTPUTS, Layers, Network
from .products import IS_FAST
from .slopes import LINEAR, RELU, TANH

_ACTIVATIONS = {nn.Tanh: TANH, nn.ReLU: RELU}
_ACTIONS = (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)
_ALIGNMENT = 16
"""Numbers in 64 bytes."""
_OBSERVATIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
DISTRIBUTIONS = (CategoricalDistribution, MultiCategoricalDistribution, DiagGaussianDistribution)
"""Of actions, that kernels know."""
OTHER_STEPS = ("amsgrad", "maximize", "differentiable", "decoupled_weight_decay")
"""Options with which torch's Adam takes other steps than the compiled one."""
_FORWARD = frozenset({"forward", "forward_actor", "forward_critic", "logits", "split"})
"""Methods of networks that make up what these say."""
_METHODS = frozenset(dir(ActorCriticPolicy)) | _FORWARD
_OF_DISTRIBUTION = frozenset(dir(Distribution))
_AS_SHIPPED = {name: what for name, what in vars(ActorCriticPolicy).items() if callable(what)}
"""The methods of SB3's class, which has further attributes as soon as somebody looks at it."""
_OF_ALL = tuple(
    getattr(all_modules, f"_global_{name}_hooks", {})
    for name in ("forward", "forward_pre", "backward", "backward_pre")
)
"""Hooks of every module, which torch changes and never replaces."""


class NotCompiled(Exception):
    """Say why something is left to stable-baselines3."""


def read(policy: ActorCriticPolicy) -> Network:
    """Return the network of a policy, laid out as its parameters are, one after the other.

    Raises:
        NotCompiled: it is none that the kernels know.
    """
    _check_policy(policy)
    _check_optimizer(policy.optimizer)
    parameters = _parameters_of(policy)
    starts = dict(zip(map(id, parameters), places(parameters), strict=False))
    extractor = policy.mlp_extractor
    for net in (extractor.policy_net, extractor.value_net):
        if type(net) is not nn.Sequential:
            raise NotCompiled(f"hidden layers are {_named(net)}")
    actor_L_5 = _layers([*extractor.policy_net, policy.action_net], starts)
    critic_L_5 = _layers([*extractor.value_net, policy.value_net], starts)
    gaussian = isinstance(policy.action_space, spaces.Box)
    log_std = starts.pop(id(policy.log_std), -1) if gaussian else -1
    if gaussian and log_std < 0:
        raise NotCompiled("the standard deviations are no parameter of the policy")
    if starts:
        raise NotCompiled("the policy has parameters outside of its layers")
    choices_A = choices_of(policy.action_space)
    outputs = get_action_dim(policy.action_space) if gaussian else int(choices_A.sum())
    _check_widths(actor_L_5, policy.features_dim, outputs)
    _check_widths(critic_L_5, policy.features_dim, 1)
    if gaussian and policy.log_std.shape != (outputs,):
        raise NotCompiled(f"{policy.log_std.numel()} standard deviations serve {outputs} actions")
    return Network(actor_L_5, critic_L_5, choices_A, log_std)


def replaced(module: nn.Module) -> list[str]:
    """Return the methods of a policy, or of a module within it, that somebody has put others for.

    What stands in for one and says so (`stands_in`), or is the method itself, is none.
    """
    held = vars(module)
    if held.keys().isdisjoint(_METHODS):
        return []
    return [
        name
        for name in held.keys() & _METHODS
        if not getattr(held[name], "stands_in", False)
        and getattr(held[name], "__func__", held) is not getattr(type(module), name, None)
    ]


def is_own(policy: ActorCriticPolicy, name: str) -> bool:
    """Tell whether a method of a policy is the one that stable-baselines3 wrote."""
    original = _AS_SHIPPED[name]
    return getattr(type(policy), name, None) is original and name not in vars(policy)


def draws_otherwise(policy: ActorCriticPolicy) -> bool:
    """Tell whether somebody has replaced how a policy's class, or its distribution, acts."""
    now = vars(ActorCriticPolicy)
    is_patched = any(now.get(name) is not method for name, method in _AS_SHIPPED.items())
    return is_patched or not vars(policy.action_dist).keys().isdisjoint(_OF_DISTRIBUTION)


def watched(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether somebody takes part in an optimiser's steps."""
    own = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    of_all = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
    return (
        not {"step", "zero_grad"}.isdisjoint(vars(optimizer))
        or any(getattr(optimizer, name, None) for name in own)
        or any(getattr(all_optimizers, name, None) for name in of_all)
    )


def has_hooks(module: nn.Module) -> bool:
    """Tell whether somebody listens to a module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or any(_OF_ALL)
    )


def can_be_compiled(module: nn.Module, kernel: Any) -> bool:
    """Tell whether a compiled function may stand for a module of its kind, on the CPU."""
    return (
        IS_FAST
        and is_compiled(kernel)
        and not torch.is_autocast_enabled("cpu")
        and is_as_written(module)
    )


def is_as_written(module: nn.Module) -> bool:
    """Tell whether a module and all within it do what their classes say, and nobody listens."""
    return all(_FORWARD.isdisjoint(vars(m)) and not has_hooks(m) for m in modules_of(module))


def listens(parameter: nn.Parameter) -> bool:
    """Tell whether somebody is told of a parameter's gradient."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def modules_of(module: nn.Module) -> list[nn.Module]:
    """Return a module and those within it, as `nn.Module.modules` does, but some more than once.

    It is many times as fast, and a network is looked at in each rollout and each update.
    """
    found = [module]
    for one in found:  # which grows
        found += [part for part in one._modules.values() if part is not None]
    return found


def places(parameters: Sequence[nn.Parameter]) -> list[int]:
    """Return where each parameter begins in the flat array, and then the length of that.

    Each is aligned as torch aligns tensors, for otherwise it rounds differently.
    """
    lengths = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for p in parameters]
    return [0, *itertools.accumulate(lengths)]


def _check_policy(policy: ActorCriticPolicy) -> None:
    if type(policy) is not ActorCriticPolicy:
        raise NotCompiled(f"the policy is {type(policy).__name__}, not MlpPolicy")
    if policy.use_sde:
        raise NotCompiled("the policy uses gSDE")
    if policy.device.type != "cpu":
        raise NotCompiled(f"the policy is on {policy.device}")
    if not isinstance(policy.action_space, _ACTIONS):
        raise NotCompiled(f"actions are {type(policy.action_space).__name__}")
    if not isinstance(policy.observation_space, _OBSERVATIONS):
        raise NotCompiled(f"observations are {type(policy.observation_space).__name__}")
    asked = ("features_extractor", "pi_features_extractor", "vf_features_extractor")
    for extractor in (getattr(policy, name) for name in asked):
        if type(extractor) is not FlattenExtractor:
            raise NotCompiled(f"features come from {type(extractor).__name__}")
    if type(policy.mlp_extractor) is not MlpExtractor:
        raise NotCompiled(f"hidden layers are {type(policy.mlp_extractor).__name__}")
    if type(policy.action_dist) not in DISTRIBUTIONS:
        raise NotCompiled(f"actions are drawn from a {type(policy.action_dist).__name__}")
    if draws_otherwise(policy):
        raise NotCompiled("somebody has replaced a method of its class, or of its distribution")
    for module in modules_of(policy):
        if has_hooks(module):
            raise NotCompiled("a module of the policy has hooks")
        for name in replaced(module):
            raise NotCompiled(f"somebody has replaced {type(module).__name__}.{name}")


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    if watched(optimizer):
        raise NotCompiled("somebody takes part in the optimiser's steps")
    if type(optimizer) is not torch.optim.Adam:
        raise NotCompiled(f"the optimiser is {type(optimizer).__name__}, not Adam")
    if len(optimizer.param_groups) > 1:
        raise NotCompiled("the optimiser has groups of parameters")
    (group,) = optimizer.param_groups
    for option in OTHER_STEPS:
        if group.get(option):
            raise NotCompiled(f"the optimiser has {option}")
    if isinstance(group["lr"], torch.Tensor):
        raise NotCompiled("the learning rate is a tensor")


def _parameters_of(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    """Return the parameters of a policy, if kernels can take them and Adam steps all of them."""
    named = dict(policy.named_parameters())
    for name, parameter in named.items():
        if listens(parameter):
            raise NotCompiled(f"{name} has hooks")
        if parameter.dtype is not torch.float32:
            raise NotCompiled(f"{name} is {parameter.dtype}, not torch.float32")
        if not parameter.requires_grad:
            raise NotCompiled(f"{name} is frozen")
        if parameter.untyped_storage().is_shared():
            raise NotCompiled(f"{name} is in memory that processes share")
    parameters = list(named.values())
    if len({p.data_ptr() for p in parameters}) < len(parameters):
        raise NotCompiled("parameters share memory")
    (group,) = policy.optimizer.param_groups
    if [id(p) for p in group["params"]] != [id(p) for p in parameters]:
        raise NotCompiled("the optimiser's parameters are not those of the policy")
    return parameters


def _layers(modules: list[nn.Module], starts: dict[int, int]) -> Layers:
    """Return the table of a tower, and take its parameters out of `starts`."""
    rows: list[list[int]] = []
    for module in modules:
        if type(module) is nn.Linear and _is_whole(module):
            places = (starts.pop(id(p), -1) for p in (module.weight, module.bias))
            rows.append([module.in_features, module.out_features, *places, LINEAR])
        elif type(module) in _ACTIVATIONS and rows and rows[-1][4] == LINEAR:
            rows[-1][4] = _ACTIVATIONS[type(module)]
        else:
            raise NotCompiled(f"a layer is {_named(module)}")
    if any(place < 0 for row in rows for place in row[2:4]):
        raise NotCompiled("layers share parameters")
    return np.array(rows, np.int64)


def _named(module: nn.Module) -> str:
    """Return what a module is, in one line."""
    said = str(module)
    return type(module).__name__ if "\n" in said else said


def _is_whole(layer: nn.Linear) -> bool:
    """Tell whether a layer has the parameters that it says it has."""
    shape = layer.out_features, layer.in_features
    return layer.weight.shape == shape and layer.bias is not None and layer.bias.shape == shape[:1]


def _check_widths(layers_L_5: Layers, inputs: int, outputs: int) -> None:
    """See whether each layer takes what the one before it says: kernels look at no bounds."""
    given = [inputs, *layers_L_5[:, OUTPUTS].tolist()]
    if given != [*layers_L_5[:, INPUTS].tolist(), outputs]:
        raise NotCompiled(f"layers of widths {given} are to make {outputs} of {inputs} numbers")


def choices_of(space: spaces.Space[object]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of choices in each part of a discrete action; none for others."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n], np.int64)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.astype(np.int64).ravel()
    return np.empty(0, np.int64)
