"""The paper's players (Silver et al. 2016, Figure 4b), by the parts that each has."""

VARIANTS = {
    "rvp": ("rollout", "value", "policy"),
    "vp": ("value", "policy"),
    "rp": ("rollout", "policy"),
    "rv": ("rollout", "value"),
    "v": ("value",),
    "p": ("policy",),
    "r": ("rollout",),
}
"""the paper's names, and the parts that each plays with; without a policy network the priors are the tree policy's"""
