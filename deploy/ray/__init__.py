"""Sailplane as a Ray Serve application: replicas of the engine, and an ingress in front.

`app` builds it, `replica` is one engine, `relay` takes requests from one to the other, `ingress`
speaks HTTP, `options` and `scaling` say how many. Everything else is the server's own.
"""
