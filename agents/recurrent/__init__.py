"""DQN with a recurrent network: Hausknecht and Stone 2015 (DRQN), Kapturowski et al. 2019 (R2D2)."""
