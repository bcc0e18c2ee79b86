"""Go on small boards: exact rules, fast enough for search and self-play."""

import gymnasium

if "rlkit/Go-v0" not in gymnasium.registry:
    gymnasium.register("rlkit/Go-v0", entry_point="envs.go.gym:GoEnv")
