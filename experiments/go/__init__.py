"""Commands: Go: self-play, matches, engines."""
