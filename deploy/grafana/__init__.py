"""The dashboards, written down as rows of panels, and what makes Grafana's JSON of them."""
