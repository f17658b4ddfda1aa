"""`vaeserve key`: a new key for a caller of the server."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options
from app.cli.terminal import note
from app.errors import CommandError, StartupError, UsageError
from app.security.keys import entry_of, new_key, read_keys


@dataclass(frozen=True)
class Key(options.Command):
    """Make a key for a caller, and its line for the server's keys file.

    The key is printed on stdout and stored nowhere: give it to the caller. The line holds the key's hash. A running
    server reads a changed keys file within two seconds. To replace a key, add another one of the same name, and delete
    the old line once nobody uses it.
    """

    EXAMPLES = (
        ("A key for the caller web, added to the file that VAE_KEYS_FILE names", "vaeserve key web --file keys"),
        ("A key that also opens the management routes", "vaeserve key operator --admin --file keys"),
        ("A key with its own rate limit", "vaeserve key batch --rate '20/second;600/minute' --file keys"),
    )

    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the caller in the log.")]
    file: Annotated[
        Path | None, typer.Option("--file", help="Keys file to add the line to; if absent, the line is printed.")
    ] = None
    admin: Annotated[bool, typer.Option("--admin", help="The key also opens the management routes.")] = False
    rate: Annotated[
        str | None, typer.Option(help="Rate limit of this key, such as 600/minute, in place of VAE_RATE_LIMIT.")
    ] = None

    def run(self) -> None:
        made = new_key()
        entry = entry_of(self.name, made, is_admin=self.admin) + (f" rate={self.rate}" if self.rate else "")
        try:
            read_keys(entry, "the line")
        except StartupError:
            raise UsageError("NAME has letters, digits, `.`, `_` and `-`; a rate looks like 600/minute") from None
        if self.file is None:
            note(f"the line for VAE_KEYS_FILE: {entry}")
        else:
            _append(self.file, entry)
            note(f"added to {self.file}: {entry}")
        print(made)


def _append(file: Path, entry: str) -> None:
    """Add a line to a file; a new file can be read by its owner only."""
    try:
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as keys:
            text = keys.read()
            keys.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{entry}\n")
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} cannot be written: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
