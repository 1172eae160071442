"""Consumer: from the log to the store, then to delivery and answers."""
