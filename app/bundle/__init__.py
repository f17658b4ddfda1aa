"""The contract on disk: a bundle is a directory whose `manifest.json` names every other file with its sha256."""
