"""Messages: accepting, storing, reading back, read marks."""
