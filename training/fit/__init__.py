"""From a recipe to a checkpoint: the training loop and its parts."""
