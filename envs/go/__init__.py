"""Go on small boards: exact rules, fast enough for search and self-play."""
