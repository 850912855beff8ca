"""The client's commands, one per file. options.py has the options that they share."""
