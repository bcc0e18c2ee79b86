"""The worlds. Nothing in here imports anything else of this project."""
