"""The command line: reads the settings, starts the stores, runs the roles, and turns errors into sentences."""
