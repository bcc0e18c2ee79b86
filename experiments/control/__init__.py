"""Commands: worlds of one player: DQN and its kin."""
