"""The dashboards, one file each; the first is the one to open when something is wrong."""

from deploy.grafana.boards.capacity import CAPACITY
from deploy.grafana.boards.generation import GENERATION
from deploy.grafana.boards.overview import OVERVIEW
from deploy.grafana.boards.routing import ROUTING

BOARDS = (OVERVIEW, ROUTING, CAPACITY, GENERATION)
