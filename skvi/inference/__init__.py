"""The engine: one loop over global updates, its drivers, and its numerical tools."""
