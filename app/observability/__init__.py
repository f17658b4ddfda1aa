"""Logs, timings and traces."""
