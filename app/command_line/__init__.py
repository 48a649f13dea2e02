"""What a person types, from words to a run; it may import all of app but deploy.

`command` reads a command line into what it is, `config_files` and `section` put configs and options on top of one another,
`rules` adds what follows from them, `checked` makes values of words and says what is wrong, and `cli` runs the verb.
"""
