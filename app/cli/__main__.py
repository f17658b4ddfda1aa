"""`python -m app.cli`: the command `vaeserve`, wherever it is not installed."""

from app.cli import main

if __name__ == "__main__":
    main()
