"""How a request reaches its operation, and how its answer or its error leaves."""
