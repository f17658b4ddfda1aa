"""The Open Inference Protocol v2: one file per kind of call, and `graphs`, the protocol's models."""
