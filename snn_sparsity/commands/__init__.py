"""What the command line can do: ``tree`` parses it; a module a command, each with ``run(given) -> exit code``."""
