"""Generation: small models that learn twelve tasks, random ones to time, peers, and figures."""
