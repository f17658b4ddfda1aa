"""From a foreign autoencoder to a bundle. Start with `bring`; `command` is what is typed, and imports little."""
