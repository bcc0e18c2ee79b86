"""Commands: supervised learning without a world."""
