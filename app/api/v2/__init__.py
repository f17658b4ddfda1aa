"""The Open Inference Protocol v2: one file a kind of call, and `graphs`, what it calls a model."""
