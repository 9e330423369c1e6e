"""Search quality, measured end to end through the real services."""
