"""Deep Q-networks: Mnih et al. 2015, "Human-level control through deep reinforcement learning"."""
