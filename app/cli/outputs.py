"""Where results go: a file that is there whole or not at all, a folder, or stdout."""

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import CommandError, UsageError

STDOUT = "-"


@dataclass(frozen=True)
class Output:
    """A file of a known form, a folder of files, or stdout where there is no path."""

    name: str
    """As it was typed."""
    path: Path | None
    form: str
    """The suffix without its dot; empty for a folder."""

    @classmethod
    def parse(cls, text: str, forms: tuple[str, ...], stdout_form: str) -> "Output":
        """What `--output` names; `forms` are those that the command can write, `""` among them where it fills folders.

        Raises:
            UsageError: another form, or a place that is not there; before anything is asked of a server.
        """
        path = Path(os.path.realpath(text))  # behind a link lies the file that is replaced
        form = stdout_form if text == STDOUT else path.suffix[1:].lower()
        if text != STDOUT and (text.endswith("/") or path.is_dir()):
            form = ""
        if form not in forms:
            suffixes = ", ".join(f".{form}" for form in forms if form)
            raise UsageError(f"--output takes {suffixes}" + (" or a folder" if "" in forms else ""))
        if text == STDOUT and sys.stdout.isatty():
            raise UsageError("--output - would write bytes to the terminal: send them to a file or another program")
        if text != STDOUT and not path.parent.is_dir():
            raise UsageError(f"--output: there is no folder {path.parent}")
        return cls(text, None if text == STDOUT else path, form)

    def spare(self, inputs: Iterable[str], files: Iterable[str] = ()) -> None:
        """Refuse to replace what a command reads: `files` are what is written into a folder.

        Raises:
            UsageError: one of the files that are written is one of `inputs`, by whatever path or link.
        """
        if self.path is None:
            return
        targets = [self.path / name for name in files] if self.form == "" else [self.path]
        there = {identity: target for target in targets if (identity := _identity(target))}
        for name in inputs if there else ():
            if (identity := _identity(name)) and (target := there.get(identity)):
                raise UsageError(
                    f"--output {self.name} would overwrite {target.name}, which is read: name another place"
                )

    def write(self, content: bytes) -> None:
        """Write the file; raises CommandError where the system refuses."""
        if self.path is None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            _replace(self.path, content)

    def fill(self, files: dict[str, bytes]) -> None:
        """Write files into the folder, which is made where it is absent; raises CommandError as `write`."""
        assert self.path is not None
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise CommandError(f"{self.path} cannot be made: {error.strerror}") from error
        for name, content in files.items():
            _replace(self.path / name, content)


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What all paths of one file have in common; None where there is no file, or a device, which nothing replaces."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _replace(path: Path, content: bytes) -> None:
    """Write beside it and put in its place: whoever is interrupted leaves the old file or the new one."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no such place
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
