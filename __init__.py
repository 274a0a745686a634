"""Palaestra: one ground on which PPO and language models compete.

Nothing is imported here, so that `import palaestra` stays free; the rooms are
`palaestra.envs`, `palaestra.policies`, `palaestra.agents` and `palaestra.train`.
"""

__version__ = "0.1.0"
