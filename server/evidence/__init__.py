"""The routing log: what a line says, who writes it, who reads it, and what it shows.

Knows nothing of HTTP. A line holds ids, scores and times, and no text of a request.
"""
