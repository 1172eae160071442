"""Groups, members, roles, bans and invites."""
