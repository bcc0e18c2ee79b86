"""Tree search with random play-outs: Kocsis and Szepesvari 2006."""
