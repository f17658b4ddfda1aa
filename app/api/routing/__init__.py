"""How a request reaches its operation, and how its response or its error is made."""
