"""One run in several processes."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlkit.parallel.ranks import Ranks


def all_ranks() -> "Ranks | None":
    """The processes that learn one model with this one, where torchrun has started several."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return None
    from rlkit.parallel.ranks import this_rank

    return this_rank()
