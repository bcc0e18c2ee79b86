"""The papers: one folder an agent. Agents import rlkit and nothing else of this project."""
