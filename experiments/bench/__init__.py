"""How fast, against whom, and how far from the bound: `python -m experiments bench --help`."""
