"""What an agent lives in: environments, their two views and their tools.

`import palaestra.envs` registers every environment with Gymnasium. The entry points are
strings, so neither torch nor Numba is imported before an environment is made.
"""

from gymnasium import register

register(
    id="palaestra/CartPole-v1",
    entry_point=f"{__name__}.cartpole:CartPole",
    vector_entry_point=f"{__name__}.cartpole:CartPoleVector",
    max_episode_steps=500,
    reward_threshold=475.0,
)
register(
    id="palaestra/Calculator-v0",
    entry_point=f"{__name__}.calculator:Calculator",
    reward_threshold=0.95,
)
register(
    id="palaestra/Capitals-v0",
    entry_point=f"{__name__}.capitals:Capitals",
    reward_threshold=0.95,
)
