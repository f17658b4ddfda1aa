"""The formulas, in numpy alone, each with its source."""
