"""Offline answers: a file of requests in, a file of answers out, through the engine that serves."""
