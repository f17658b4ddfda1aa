"""Where results go: a file that is written whole or not at all, a folder, stdout or the terminal."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import CommandError, UsageError

STDOUT = "-"


@dataclass(frozen=True)
class Output:
    """The destination that `--output` names; without the option, the terminal."""

    name: str | None
    """The option's value as it was typed; None if it was absent."""
    path: Path | None
    """The file or folder; None for stdout and for the terminal."""
    format: str
    """The suffix without its dot; empty for a folder and for the terminal."""

    @classmethod
    def parse(cls, text: str | None, formats: tuple[str, ...], stdout_format: str) -> "Output":
        """Parse and check `--output`, before anything is sent to a server.

        `formats` are the suffixes that the command can write; `""` is among them if it can fill a folder.

        Raises:
            UsageError: the format is not among them, the parent folder does not exist, or stdout is a terminal.
        """
        if text is None:
            return cls(None, None, "")
        path = Path(os.path.realpath(text))  # write through a symbolic link, do not replace it
        suffix = stdout_format if text == STDOUT else path.suffix[1:].lower()
        if text != STDOUT and (text.endswith("/") or path.is_dir()):
            suffix = ""
        if suffix not in formats:
            suffixes = ", ".join(f".{name}" for name in formats if name)
            raise UsageError(f"--output takes {suffixes}" + (" or a folder" if "" in formats else ""))
        if text == STDOUT and sys.stdout.isatty():
            raise UsageError("--output - would write bytes to the terminal: send them to a file or another program")
        if text != STDOUT and not path.parent.is_dir():
            raise UsageError(f"--output: there is no folder {path.parent}")
        return cls(text, None if text == STDOUT else path, suffix)

    def refuse_overwrite(self, inputs: Iterable[str], files: Iterable[str] = ()) -> None:
        """Check that no input file would be replaced; `files` are the names that are written into a folder.

        Raises:
            UsageError: a file that would be written is one of `inputs`, also through symbolic links.
        """
        if self.path is None:
            return
        targets = [self.path] if self.format else [self.path / name for name in files]
        written = {os.path.realpath(target): target.name for target in targets}
        for name in inputs:
            if target := written.get(os.path.realpath(name)):
                raise UsageError(
                    f"--output {self.name} would overwrite {target}, which is an input: name another output"
                )

    def write(self, content: bytes) -> None:
        """Write the file, or to stdout.

        Raises:
            CommandError: the file cannot be written.
        """
        if self.path is None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            _replace(self.path, content)

    def fill(self, files: dict[str, bytes]) -> None:
        """Write files into the folder, which is created if it does not exist.

        Raises:
            CommandError: the folder or a file cannot be written.
        """
        assert self.path is not None
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise CommandError(f"the folder {self.path} cannot be created: {error.strerror}") from error
        for name, content in files.items():
            _replace(self.path / name, content)


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it, so that an interruption leaves the old file or the new one."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced by a rename
            path.write_bytes(content)
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
