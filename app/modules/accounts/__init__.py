"""Users, sessions, tokens and tickets."""
