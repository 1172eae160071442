"""How a process knows the servers that it calls by their certificates, and shows its own."""

import ssl

from app.errors import ConfigError


def client_context(settings: str, ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Reads PEM files, so it blocks. Empty: the system's authorities; no certificate of its own; the key stands in `cert_file`.

    Raises ConfigError, which names `settings`.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"A certificate of {settings} cannot be used: {error}.") from None
    return context
