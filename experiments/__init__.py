"""One file, one command: a Config and a main."""
