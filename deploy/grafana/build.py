"""Makes the dashboards' JSON of their boards: `python -m deploy.grafana.build`.

Grafana's own SDK writes the fields, so that their names and defaults are Grafana's. A test compares
what is committed with what comes out of here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as look
from grafana_foundation_sdk.builders import (
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Threshold,
    VariableModel,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import Board, Panel, Query

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = 'job=~"$job", instance=~"$instance"'
BUILDERS = {
    "lines": timeseries.Panel, "area": timeseries.Panel, "stat": stat.Panel,
    "heat": heatmap.Panel, "table": table.Panel,
}  # fmt: skip
FORMATS = {"heat": PromQueryFormat.HEATMAP, "table": PromQueryFormat.TABLE}
HEIGHTS = {"stat": 4, "table": 6}
PLAIN_HEIGHT = 8
GREEN, YELLOW, RED = "green", "yellow", "red"


def document(board: Board) -> str:
    """A dashboard as text, the same for the same board."""
    built = (
        dashboard.Dashboard(board.title).uid(board.uid).description(board.description)
        .tags(["sailplane"]).timezone("browser").time("now-1h", "now").refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR).variables(list(_variables())).annotations([])
        .link(dashboard.DashboardLink("Sailplane").type("dashboards").tags(["sailplane"])
              .as_dropdown(True).keep_time(True).include_vars(True))
    )  # fmt: skip
    ids = count(1)
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            built = built.with_panel(_panel(panel).id(next(ids)))
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(built.build()) + "\n"


def _variables() -> Iterator[Builder[VariableModel]]:
    """The data source, and which servers' figures are shown."""
    yield dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
    for name, query in (
        ("job", "label_values(sailplane_ready, job)"),
        ("instance", 'label_values(sailplane_ready{job=~"$job"}, instance)'),
    ):
        yield (
            dashboard.QueryVariable(name).label(name.title()).datasource(SOURCE).query(query)
            .multi(True).include_all(True).all_value(".*")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )  # fmt: skip


def _panel(panel: Panel) -> timeseries.Panel:
    """The panel as Grafana's builders have it; they share the methods that are used here."""
    built = (
        BUILDERS[panel.form]().title(panel.title).description(panel.description).unit(panel.unit)
        .datasource(SOURCE).span(panel.width).height(HEIGHTS.get(panel.form, PLAIN_HEIGHT))
    )  # fmt: skip
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        built = built.with_target(_target(panel, query).ref_id(letter))
    if panel.form in ("lines", "area"):
        built = _drawn(built, panel)
    if panel.most is not None:
        built = built.min(0).max(panel.most)
    if panel.warn is not None:
        built = built.thresholds(_thresholds(panel))
    return built


def _target(panel: Panel, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr.replace("$on", CHOSEN))
    if panel.form in FORMATS:
        target = target.format(FORMATS[panel.form])
    if panel.form in ("stat", "table"):
        target = target.instant()
    return target.legend_format(query.legend) if query.legend else target


def _drawn(built: timeseries.Panel, panel: Panel) -> timeseries.Panel:
    legend = look.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    built = (
        built.legend(legend.placement(LegendPlacement.BOTTOM)).axis_soft_min(0).line_width(1)
        .tooltip(look.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )  # fmt: skip
    if panel.form == "area":
        built = built.fill_opacity(30).stacking(look.StackingConfig().mode(StackingMode.NORMAL))
    return built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Colours from the first bad value on; upside down where low values are the bad ones."""
    warn, alarm = panel.warn, panel.alarm
    if warn is not None and alarm is not None and alarm < warn:
        steps = [(None, RED), (alarm, YELLOW), (warn, GREEN)]
    else:
        steps = [(None, GREEN), (warn, YELLOW), (alarm, RED)]
    told = [Threshold(value, color) for value, color in steps]
    return dashboard.ThresholdsConfig().steps(told)


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(document(board), "utf-8")


if __name__ == "__main__":
    main()
