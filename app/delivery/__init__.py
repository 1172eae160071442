"""Delivery: from the consumer down to the gateways, and answers to the node that asked."""
