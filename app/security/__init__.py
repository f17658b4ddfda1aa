"""Keys, rate limits and TLS."""
