"""AlphaZero: a policy and value network, search with it, and self-play (Silver et al. 2017, 2018)."""
