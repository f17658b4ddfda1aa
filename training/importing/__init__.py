"""Import of foreign autoencoders as bundles. Start reading at `pipeline`; `command` is the command line."""
