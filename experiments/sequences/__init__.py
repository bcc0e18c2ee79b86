"""Commands: text."""
