"""Parallelised Q-network: Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning"."""
