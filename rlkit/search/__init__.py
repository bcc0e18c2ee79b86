"""Monte Carlo tree search over any two-player game.

trees (arrays and verbs), root (what is special about a root), game (what is asked of one), inference (a network behind
a search), kept_tree (a tree from move to move).
"""
