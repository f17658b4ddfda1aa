"""The command line for people: `vaeserve`, or `python -m app.cli`. One file a command."""


def main() -> None:
    """Run it; imported only now, for whoever wants another module of this package."""
    from app.cli.main import main

    main()
