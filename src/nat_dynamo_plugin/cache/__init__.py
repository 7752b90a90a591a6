"""What was answered before: which calls are equal, which answers are kept and where, and how they are said again."""
