"""The command line `vaeserve`, also `python -m app.cli`. One file per command."""


def main() -> None:
    """Run the command line; imported late, so that other modules of this package load without it."""
    from app.cli.main import main

    main()
