"""Algorithms that compare queries with the support set in a learned space. May import learners and all below."""
