"""The rows of a finished run: a table, feature vectors, and their files."""
