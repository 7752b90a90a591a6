"""How much may be asked for in a minute or a day: by rules of one's own, and by what providers say of theirs."""
