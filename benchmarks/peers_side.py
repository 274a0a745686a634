"""One side of `peers.py`: trains or steps CartPole as one library does, when told to.

Run by the interpreter that has the library, so it needs nothing else.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from sides import orders

Run = Callable[[], Any]


def main() -> None:
    """Answer one order after the other."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    suite = sys.argv[1]
    for order, reply in orders():
        answer: Any = None
        match order:
            case {"train": [name, n, steps, settings]}:
                run = TRAINERS[suite](name, n, steps, settings)
                run()
                answer = steps
            case {"step": [n, count]}:
                run = _stepper(STEPPERS[suite](n), n, count)
                run()
                answer = n * count
            case {"run": _}:
                start = time.process_time()
                run()
                answer = time.process_time() - start
            case {"spent": _}:
                answer = time.process_time()
        reply(answer)


def _stepper(env: Any, n: int, count: int) -> Run:
    import numpy as np

    actions = np.random.default_rng(0).integers(0, 2, (count, n))
    env.reset()

    def step() -> None:
        for action_N in actions:
            env.step(action_N)

    return step


def _palaestra_envs(n: int, **kwargs: Any) -> Any:
    import gymnasium
    import palaestra.envs  # noqa: F401

    return gymnasium.make_vec("palaestra/CartPole-v1", n, "vector_entry_point", **kwargs)


def _envpool(n: int) -> Any:
    import envpool

    warnings.filterwarnings("ignore", ".*precision lowered")  # of the spaces that it declares
    return envpool.make("CartPole-v1", "gymnasium", num_envs=n, num_threads=1)


def _palaestra(name: str, n: int, steps: int, settings: dict[str, Any]) -> Run:
    from palaestra.train.kernel_vec_env import KernelVecEnv
    from palaestra.train.ppo import PPO

    envs = KernelVecEnv(_palaestra_envs(n, autoreset_mode="SameStep").unwrapped)
    return partial(PPO("MlpPolicy", envs, device="cpu", **settings).learn, steps)


def _sb3(name: str, n: int, steps: int, settings: dict[str, Any]) -> Run:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    return partial(PPO("MlpPolicy", make_vec_env(name, n), device="cpu", **settings).learn, steps)


def _sbx(name: str, n: int, steps: int, settings: dict[str, Any]) -> Run:
    from sbx import PPO
    from stable_baselines3.common.env_util import make_vec_env

    return partial(PPO("MlpPolicy", make_vec_env(name, n), **settings).learn, steps)


def _purejaxrl(name: str, n: int, steps: int, settings: dict[str, Any]) -> Run:
    """Compile all of a training, as PureJaxRL does: rollouts, advantages, epochs, minibatches."""
    import flax.linen as nn
    import gymnax
    import jax
    import jax.numpy as jnp
    import optax

    n_steps, size = settings.get("n_steps", 2048), settings.get("batch_size", 64)
    epochs, gamma = settings.get("n_epochs", 10), settings.get("gamma", 0.99)
    decay = gamma * settings.get("gae_lambda", 0.95)
    env, params = gymnax.make(name)
    adam = optax.adam(settings.get("learning_rate", 3e-4), eps=1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), adam)

    class ActorCritic(nn.Module):
        @nn.compact
        def __call__(self, seen: Any) -> Any:
            def tower(outputs: int, scale: float) -> Any:
                hidden = seen
                for _ in range(2):
                    hidden = nn.tanh(
                        nn.Dense(64, kernel_init=nn.initializers.orthogonal(2**0.5))(hidden)
                    )
                return nn.Dense(outputs, kernel_init=nn.initializers.orthogonal(scale))(hidden)

            return tower(env.num_actions, 0.01), tower(1, 1.0)[..., 0]

    network = ActorCritic()

    def step(carry: Any, _: Any) -> Any:
        weights, states, seen, returns, key = carry
        key, key_action, key_step = jax.random.split(key, 3)
        logits, value = network.apply(weights, seen)
        action = jax.random.categorical(key_action, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        keys = jax.random.split(key_step, n)
        after, states, reward, terminated, truncated, _ = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(keys, states, action, params)
        done = terminated | truncated
        told = (seen, action, value, log_prob, reward, done, (returns + reward) * done)
        return (weights, states, after, (returns + reward) * ~done, key), told

    def loss_of(weights: Any, batch: Any) -> Any:
        seen, action, old_log_prob, advantage, target = batch
        logits, value = network.apply(weights, seen)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        ratio = jnp.exp(log_prob - old_log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        kept = jnp.clip(ratio, 0.8, 1.2) * advantage
        policy_loss = -jnp.minimum(ratio * advantage, kept).mean()
        return policy_loss + 0.5 * ((value - target) ** 2).mean()

    def descend(carry: Any, batch: Any) -> Any:
        weights, memory = carry
        loss, slopes = jax.value_and_grad(loss_of)(weights, batch)
        changes, memory = optimizer.update(slopes, memory)
        return (optax.apply_updates(weights, changes), memory), loss

    def epoch(carry: Any, _: Any) -> Any:
        learned, data, key = carry
        key, key_order = jax.random.split(key)
        order = jax.random.permutation(key_order, n_steps * n)
        batches = jax.tree.map(lambda a: a[order].reshape(-1, size, *a.shape[1:]), data)
        learned, losses = jax.lax.scan(descend, learned, batches)
        return (learned, data, key), losses

    def update(carry: Any, _: Any) -> Any:
        (weights, memory), states, seen, returns, key = carry
        (_, states, seen, returns, key), told = jax.lax.scan(
            step, (weights, states, seen, returns, key), None, n_steps
        )
        old_seen, action, value, log_prob, reward, done, ended = told

        def backward(carry: Any, at: Any) -> Any:
            advantage, next_value = carry
            value, reward, done = at
            delta = reward + gamma * next_value * ~done - value
            advantage = delta + decay * ~done * advantage
            return (advantage, value), advantage

        last = network.apply(weights, seen)[1]
        _, advantage = jax.lax.scan(
            backward, (jnp.zeros(n), last), (value, reward, done), reverse=True
        )
        data = (old_seen, action, log_prob, advantage, advantage + value)
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), data)
        (learned, _, key), losses = jax.lax.scan(
            epoch, ((weights, memory), flat, key), None, epochs
        )
        return (learned, states, seen, returns, key), (losses.mean(), ended.sum(), done.sum())

    @jax.jit
    def train(carry: Any) -> Any:
        return jax.lax.scan(update, carry, None, steps // (n_steps * n))

    key, key_weights, key_reset = jax.random.split(jax.random.PRNGKey(0), 3)
    seen, states = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key_reset, n), params)
    weights = network.init(key_weights, seen)
    carry = [((weights, optimizer.init(weights)), states, seen, jnp.zeros(n), key)]

    def run() -> float:
        carry[0], (_, ended, episodes) = jax.block_until_ready(train(carry[0]))
        return float(ended.sum() / episodes.sum())

    return run


TRAINERS = {"palaestra": _palaestra, "SB3": _sb3, "SBX": _sbx, "PureJaxRL on gymnax": _purejaxrl}
STEPPERS = {"palaestra": _palaestra_envs, "envpool": _envpool}

if __name__ == "__main__":
    main()
