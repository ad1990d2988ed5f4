"""A first recipe: what `skillfactory init` asks about, guesses and writes."""
