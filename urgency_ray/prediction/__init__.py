"""A saved model over the rows of new calls."""
