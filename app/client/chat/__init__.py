"""The terminal chat: a person's client on top of `app.client`."""
