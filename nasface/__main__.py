"""`python -m nasface` is the command `nasface`."""

from nasface.cli import main

if __name__ == "__main__":
    main()
