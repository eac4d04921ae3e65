"""The settings text of each consumer, ready to paste. Pure functions; what they return holds a key."""
