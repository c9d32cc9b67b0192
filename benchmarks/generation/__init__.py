"""Generation: material, peers and figures."""
