"""A served model and its operations, and the catalog of served models."""
