"""The bundle contract: the manifest, the files it names, and what follows from them."""
