"""What a run found: tables for the terminal, and a page that stands alone."""
