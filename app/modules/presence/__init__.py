"""Who is connected where, and who is online."""
