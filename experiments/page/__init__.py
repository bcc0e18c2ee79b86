"""The page in the browser: its server, and what it answers."""
