"""The gateways as a cluster: which of them a user connects to."""
