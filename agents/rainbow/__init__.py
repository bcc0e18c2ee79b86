"""What came after DQN, as differences to it, up to Rainbow (Hessel et al. 2018), IQN and Munchausen DQN."""
