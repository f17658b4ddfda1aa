"""Reduce the weights of bundles. A reduction that changes results too much is refused."""
