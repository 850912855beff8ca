"""What runs in the server's container around Triton: checks, the command line, health. Python's own library only."""
