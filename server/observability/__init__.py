"""What the server tells its operators: metrics and one log line per request."""
