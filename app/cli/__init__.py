"""The command line `vaeserve`, also `python -m app.cli`. One file per command."""
