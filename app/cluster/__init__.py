"""The server on Ray Serve: a deployment for each model, and an ingress that sends every request to the right one.

`serve run deploy/ray/serve.yaml` starts it; docs/scaling.md says when. Needs the extra `ray`.
"""
