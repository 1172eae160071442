"""Features. A higher feature uses the service of a lower one, never its repository."""
