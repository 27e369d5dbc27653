"""What the command line can do, a module a command, each with ``run(arguments) -> exit code``."""
