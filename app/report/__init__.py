"""Runs side by side in one HTML page that needs no network."""
