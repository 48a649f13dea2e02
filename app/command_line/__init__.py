"""What a person types: the verbs, what may be left out, what is said of a wrong one. May import all of app but deploy."""
