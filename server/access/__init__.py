"""Who may call, what each may use, and how much of it. Knows nothing of bodies and of routing."""
