"""Ways to run Sailplane, beside `sailplane serve`; nothing in the packages imports from here."""
