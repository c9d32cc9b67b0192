"""A server under load for a long time, and under far more than it can take: `make load`."""
