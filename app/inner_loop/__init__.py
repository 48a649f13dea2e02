"""The differentiable inner loop, and the stack of tasks on which it is fast. May import the core."""
