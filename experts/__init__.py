"""What an expert is, where it lives and how it changes a frozen backbone.

Knows nothing of who should answer a request (`routers`) or of HTTP (`server`).
"""
