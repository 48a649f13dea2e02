"""Losses, scores of episodes and what they come to. May import the core."""
