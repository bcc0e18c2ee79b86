"""One file, one run: a Config and a main."""
