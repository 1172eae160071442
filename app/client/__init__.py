"""Reference client of protocol version 1: the client rules of docs/protocol.md as code.

`Client` is the whole of it; `Api` alone speaks HTTP; `ClientOptions` holds every bound; `Hooks` looks in for tests.
"""
