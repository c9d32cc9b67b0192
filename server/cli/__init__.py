"""The console script `sailplane`: one file per command.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import typer

from server.cli import experts, keys
from server.cli.batch import batch
from server.cli.card import card
from server.cli.config import config
from server.cli.evaluate import evaluate
from server.cli.fit import fit
from server.cli.log import log
from server.cli.merge import merge
from server.cli.mirror import pull, push
from server.cli.options import EPILOG
from server.cli.route import route
from server.cli.serve import serve
from server.cli.train import train

app = typer.Typer(
    name="sailplane",
    help="An inference server that routes each question to the right adapters by itself.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    epilog="Example: sailplane serve",
)

app.command(epilog=f"{EPILOG} Example: sailplane serve --port 9000 --router dam")(serve)
app.command(epilog=f"{EPILOG} Example: sailplane batch in.jsonl out.jsonl")(batch)
app.command(epilog=f"{EPILOG} Example: sailplane config --config sailplane.toml")(config)
app.command(epilog='Example: sailplane route "What a lovely day!" --choices joy,anger')(route)
app.command(epilog="Example: sailplane train --tasks tests/data/tasks --only trec,sst2")(train)
app.command(epilog="Example: sailplane fit --tasks tests/data/tasks --calibrate")(fit)
app.command(epilog="Example: sailplane evaluate --tasks tests/data/tasks --limit 10")(evaluate)
app.command(epilog="Example: sailplane card --library library/minilm")(card)
app.command(epilog="Example: sailplane log routing.jsonl --plots plots")(log)
experts.app.command(epilog="Example: sailplane experts merge both --of sst2,subj")(merge)
experts.app.command(epilog="Example: sailplane experts push s3://bucket/library")(push)
experts.app.command(epilog="Example: sailplane experts pull s3://bucket/library --library copy")(
    pull
)
app.add_typer(experts.app, name="experts", epilog="Example: sailplane experts list")
app.add_typer(keys.app, name="keys", epilog="Example: sailplane keys list --keys keys.json")
