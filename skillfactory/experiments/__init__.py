"""Experiments: a grid of methods (rows) and seeds over one recipe, run cell by cell with what cells share made once."""
