"""The toolbox: torch, numpy and numba. It knows no game and no paper."""
