"""The compiled parts of PPO: a network in one flat array, its distributions, loss and rollout."""
