"""How well models answer, and which skills they use while doing so."""
