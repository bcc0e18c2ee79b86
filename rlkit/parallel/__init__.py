"""One run in several processes."""

import os
from typing import TYPE_CHECKING, Any

from rlkit.config import Divided, fields

if TYPE_CHECKING:
    from rlkit.parallel.ranks import Ranks


def several() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1"


def check_divided(name: str, cfg: Any) -> None:
    """Raise ValueError where several processes run what has nothing to divide among them."""
    if several() and not any(Divided in field.marks for field in fields(cfg)):
        raise ValueError(f"{name} has nothing that ranks could share: start it without torchrun")


def all_ranks() -> "Ranks | None":
    """The processes that learn one model with this one, where torchrun has started several."""
    if not several():
        return None
    from rlkit.parallel.ranks import this_rank

    return this_rank()
