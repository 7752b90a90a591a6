"""How many questions may be under way, and who waits for whom."""
