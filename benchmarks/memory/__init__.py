"""How far off `fitune estimate` is: a grid of training steps, predicted and measured."""
