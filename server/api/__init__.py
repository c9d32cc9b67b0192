"""The HTTP surface: one file per resource, wire models in `wire/`. No routing decisions here."""
