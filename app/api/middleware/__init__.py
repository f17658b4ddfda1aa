"""ASGI middleware around every request: counting, the request log, headers, errors and access."""
