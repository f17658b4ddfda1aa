"""uvicorn, extended: the HTTP protocol, worker processes, sockets and reloads."""
