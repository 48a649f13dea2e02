"""Adapting a checkpoint to a person's own examples."""
