"""The program `nasface`, also as `python -m nasface`."""

from nasface import interrupt


def run() -> None:
    """Run the command line of this process."""
    interrupt.guard()  # before anything else is imported, which takes some tenths of a second
    from nasface.cli import main

    main()


if __name__ == "__main__":
    run()
