"""The search for the best validation macro-F1: Ray Tune runs trials, an Optuna study says which and remembers them."""
