"""The client's commands, one a file; what they have in common is in connection.py and asking.py."""
