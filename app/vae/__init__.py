"""What a served model can do, and the catalog of served models."""
