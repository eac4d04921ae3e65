"""The commands behind scripts/: what they do, apart from finding a Python to do it with."""
