"""Logs, timings and traces of requests."""
