"""The callbacks that draw."""
