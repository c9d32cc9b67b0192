"""HTTP at the edge, one engine inside. May import `experts` and `routers`."""
