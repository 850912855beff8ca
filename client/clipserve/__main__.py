"""`python -m clipserve` is the program `clipserve`."""

from clipserve.command_line import main

if __name__ == "__main__":
    main()
