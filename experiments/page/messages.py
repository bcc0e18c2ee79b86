"""What messages of a page may say."""

from typing import Any


def number(message: dict[str, Any], name: str, least: float, most: float, default: float) -> float:
    """A number of a message. Raises ValueError where it is none, or not in least .. most."""
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f'"{name}" is a number from {least:g} to {most:g}')
    return value
