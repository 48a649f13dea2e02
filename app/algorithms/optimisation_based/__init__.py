"""Algorithms that adapt weights to a task by gradient steps: MAML and its kin, Reptile. May import learners and all below."""
