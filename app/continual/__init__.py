"""Learning from a stream without forgetting. May import its methods, learners and all below."""
