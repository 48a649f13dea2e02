"""Algorithms whose network maps a whole support set to its predictions. May import learners and all below."""
