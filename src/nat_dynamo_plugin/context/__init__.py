"""How long conversations are kept within a window: what is cut, and where it stays cut. No I/O in here."""
