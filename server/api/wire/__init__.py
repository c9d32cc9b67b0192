"""Wire models: what may stand in a request, field by field, and what it means to the engine."""
