"""Rollouts in which no message waits for a longer one.

Idea: stable-baselines3 steps all environments together, so with messages of different lengths most
rows of a batch wait for the longest message of every turn. Here a dialogue is answered, and goes
on in its place in the batch, as soon as its message has ended (continuous batching: Yu et al.,
"Orca: A Distributed Serving System for Transformer-Based Generative Models", 2022). A rollout
still is as many steps of each environment; when all are there, callbacks and the buffer are told
of them step by step, as stable-baselines3 tells them.

While environments answer, nobody writes, or a rollout would depend on the clock, and no killed run
could be resumed exactly. So this is for environments that answer at once: where a tool takes long,
it is better asked by all in one step.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from ..policies.language import LanguagePolicy
from ..policies.token_choice import Writer
from .token_vec_env import TokenVecEnv

if TYPE_CHECKING:
    from .ppo import PPO


class _Record:
    """What happens in T steps of N environments, each of which goes on by itself.

    Args:
        envs: The environments.
        seen_N_D: What they show at first.
        steps: T.
    """

    def __init__(self, envs: TokenVecEnv, seen_N_D: NDArray[np.uint8], steps: int) -> None:
        self._envs, self._steps = envs, steps
        shape = steps, envs.num_envs
        self.seen_T_N_D = np.concatenate(
            [seen_N_D[None], np.empty((steps, *seen_N_D.shape), seen_N_D.dtype)]
        )
        """One more than steps."""
        self.actions_T_N_L = np.empty((*shape, *(envs.action_space.shape or ())), np.int64)
        self.rewards_T_N, self.dones_T_N = np.empty(shape, np.float32), np.empty(shape, np.bool_)
        self.taken = self.actions_T_N_L, self.rewards_T_N, self.dones_T_N
        self.infos_T_N: list[list[dict[str, Any]]] = [[{}] * envs.num_envs for _ in range(steps)]
        self._places = [(0, i) for i in range(envs.num_envs)]
        """Step and environment of each message, by its number."""

    def answer(self, numbers: list[int], actions_A_L: torch.Tensor) -> torch.Tensor | None:
        """Send messages, and return what is seen where dialogues go on; a `language.Answer`."""
        places = [self._places[n] for n in numbers]
        said_A_L = actions_A_L.cpu().numpy()
        with torch.inference_mode(mode=False), torch.enable_grad():  # as environments usually are
            seen_A_D, rewards_A, dones_A, infos = self._envs.step_some(
                [i for _, i in places], said_A_L
            )
        assert isinstance(seen_A_D, np.ndarray)
        for a, (t, i) in enumerate(places):
            self.actions_T_N_L[t, i], self.seen_T_N_D[t + 1, i] = said_A_L[a], seen_A_D[a]
            self.rewards_T_N[t, i], self.dones_T_N[t, i] = rewards_A[a], dones_A[a]
            self.infos_T_N[t][i] = infos[a]
        going = [a for a, (t, _) in enumerate(places) if t + 1 < self._steps]
        self._places += [(t + 1, i) for t, i in (places[a] for a in going)]
        return torch.as_tensor(seen_A_D[going], device=actions_A_L.device) if going else None

    def lined_up(self, of_M: torch.Tensor) -> torch.Tensor:
        """Return numbers of messages by their steps and environments, shape (T, N)."""
        steps_M, envs_M = torch.tensor(self._places, device=of_M.device).T
        of_T_N = of_M.new_empty(self.rewards_T_N.shape)
        of_T_N[steps_M, envs_M] = of_M
        return of_T_N


def collect_continuously(
    model: "PPO",
    env: TokenVecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """Do what `OnPolicyAlgorithm.collect_rollouts` does, and return what it does.

    Callbacks are told of a step when the environments have taken all steps of the rollout.
    """
    model.policy.set_training_mode(False)
    rollout_buffer.reset()
    callback.on_rollout_start()
    policy, obs, starts_N = model.policy, model._last_obs, model._last_episode_starts
    assert isinstance(policy, LanguagePolicy)
    assert isinstance(obs, np.ndarray), "No previous observation was provided"
    assert starts_N is not None
    record = _Record(env, obs, n_rollout_steps)
    first_N_D = torch.as_tensor(obs, device=policy.device)
    model._last_obs = None  # who is interrupted here knows no more where the environments stand
    _, values_M1, log_probs_M = policy.write(first_N_D, Writer(policy.temperature), record.answer)
    model._last_obs = record.seen_T_N_D[-1].copy()
    model._last_episode_starts = record.dones_T_N[-1].copy()
    values_T_N_1 = record.lined_up(values_M1[:, 0])[..., None]
    log_probs_T_N = record.lined_up(log_probs_M)
    told: dict[str, Any] = {
        "self": model, "env": env, "callback": callback, "rollout_buffer": rollout_buffer,
        "n_rollout_steps": n_rollout_steps,
    }  # fmt: skip
    for t in range(n_rollout_steps):
        actions, rewards, dones = (part[t] for part in record.taken)
        infos, new_obs = record.infos_T_N[t], record.seen_T_N_D[t + 1]
        values, log_probs = values_T_N_1[t], log_probs_T_N[t]
        model.num_timesteps += env.num_envs
        told |= {
            "n_steps": t, "obs_tensor": torch.as_tensor(obs, device=policy.device),
            "actions": actions, "clipped_actions": actions, "values": values,
            "log_probs": log_probs, "new_obs": new_obs, "rewards": rewards, "dones": dones,
            "infos": infos,
        }  # fmt: skip
        callback.update_locals(told)
        if not callback.on_step():
            return False
        model._update_info_buffer(infos, dones)
        for i in np.flatnonzero(dones):
            last = infos[i].get("terminal_observation")
            if last is not None and infos[i].get("TimeLimit.truncated", False):
                rewards[i] += model.gamma * _valued(policy, policy.obs_to_tensor(last)[0]).item()
        rollout_buffer.add(obs, actions, rewards, starts_N, values, log_probs)
        obs, starts_N = new_obs, dones
    values = _valued(policy, torch.as_tensor(obs, device=policy.device))
    rollout_buffer.compute_returns_and_advantage(values, starts_N)
    callback.update_locals(told | {"n_steps": n_rollout_steps, "values": values})
    callback.on_rollout_end()
    return True


@torch.no_grad()
def _valued(policy: LanguagePolicy, obs: Any) -> torch.Tensor:
    return policy.predict_values(obs)
