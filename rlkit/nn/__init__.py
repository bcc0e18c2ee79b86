"""Networks by name: BACKBONES in convolution.py, CORES in cores.py, BOARD_BACKBONES in board.py.

    torso [B, ..., C, H, W] -> [B, ..., D]         core ([B, T, D], state, reset) -> ([B, T, D], state)
    head [B, ..., D] -> outputs                    a board's torso is a tower [B, planes, H, W] -> [B, channels, H, W]

Torsos are built with (in_shape, width=...), cores with (in_features, features, layers=...), towers with (planes,
channels, blocks). All have `out_features`; cores have `initial_state(batch)`.
"""
