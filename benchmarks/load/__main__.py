"""`python benchmarks/load`: see --help."""

from loadtest.command_line import main

if __name__ == "__main__":
    main()
