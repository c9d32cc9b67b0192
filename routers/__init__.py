"""Who should answer: request routers, token routers, and the policy that decides.

May import `experts`; knows nothing of HTTP.
"""
