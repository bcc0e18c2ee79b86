"""Monte Carlo tree search over any two-player game: trees (arrays and verbs), root (what is special about a root)."""
