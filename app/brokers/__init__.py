"""Brokers: the ordered, partitioned log between gateway and consumer."""
