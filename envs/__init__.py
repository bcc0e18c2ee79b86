"""The worlds. They import rlkit.compiled and nothing else of this project."""
