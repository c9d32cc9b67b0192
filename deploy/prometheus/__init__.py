"""What Prometheus scrapes, records and alerts of."""
