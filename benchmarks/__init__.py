"""The figures that the documentation quotes, each with the command that prints it."""
