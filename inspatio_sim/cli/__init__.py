"""The command line: options, one file a command, and what a person at the terminal sees."""
