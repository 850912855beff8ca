"""What is left when a run is over: tables, files, arrays."""
