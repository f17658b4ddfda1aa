"""`python -m app.cli` runs `vaeserve` where the script is not installed."""

from app.cli.main import main

if __name__ == "__main__":
    main()
