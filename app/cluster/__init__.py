"""The server on Ray Serve: one deployment for each model, and an ingress that sends each request to the right one.

`serve run deploy/ray/serve.yaml` starts it; docs/scaling.md says when to use it. Needs the extra `ray`.
"""
