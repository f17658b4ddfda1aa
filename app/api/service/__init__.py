"""Health, pages, the list of models, and their management."""
