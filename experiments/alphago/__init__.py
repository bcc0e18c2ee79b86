"""Commands: AlphaGo 2016: its stages and its pipeline."""
