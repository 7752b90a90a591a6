"""What calls cost: prices, a table of them, a GPU's time. Pure but for a clock."""
