"""`python -m app`: serve the models directory with the settings of the `VAE_*` environment variables."""

import argparse
import sys

from app import __version__
from app.errors import StartupError
from app.server.run import serve
from app.settings import Settings


def main() -> None:
    """Parse the arguments, which are only `--help` and `--version`, and serve; exit with one sentence on an error."""
    lines = [f"  VAE_{name.upper():20} {field.description}" for name, field in Settings.model_fields.items()]
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve the models directory. The settings are environment variables:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    try:
        serve()
    except StartupError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
