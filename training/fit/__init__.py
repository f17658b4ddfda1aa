"""From a recipe to a checkpoint: the training loop and what it is made of."""
