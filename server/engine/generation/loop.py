"""Continuous batching: at every step rows join, read a part of their prompts, write a token, leave.

Runs in the engine's thread, a step at a time, between batches of other work. A row that fails ends
alone. Whatever is told to callers goes through the event loop in one call a step.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experts.backbones.language_model import LanguageModel
from experts.decoding.deck import Deck, Reading
from experts.decoding.pages import ByteBudget
from experts.decoding.prefixes import Prefixes
from experts.errors import ExpertError
from experts.exhaustion import as_exhausted
from experts.tiers import Tiers
from experts.weights import ExpertWeights
from server.engine.generation.batch import Found, Row, RunningBatch, signed
from server.engine.generation.messages import Finish, Piece, Written
from server.engine.generation.outcomes import Outcomes
from server.engine.generation.request import Request
from server.engine.generation.reuse import begin, remember
from server.engine.generation.sampling import Drawing, draw
from server.engine.generation.text import TextStream
from server.errors import DeadlinePassed, NeverFits, UnsoundLogits

log = logging.getLogger("sailplane.generation")
CHUNK_TOKENS = 512
MAX_ROWS = 256


class GenerationLoop:
    """Answers prompts with a language model.

    Args:
        backbone: what writes. tiers: where experts come from. kv_bytes: for keys and values.
        max_rows: texts written at one time. chunk_tokens: prompt tokens that a lane reads between
            two steps: others wait no longer than that takes.

    Attributes:
        on_step: told what each step brought, and its seconds.
    """

    def __init__(
        self, backbone: LanguageModel, tiers: Tiers, *, kv_bytes: int, max_rows: int = MAX_ROWS,
        prefix_bytes: int = 0, chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:  # fmt: skip
        self.backbone, self.tiers = backbone, tiers
        self.max_rows, self.chunk_tokens = max_rows, chunk_tokens
        self.budget = ByteBudget(kv_bytes)
        self.batch = RunningBatch(backbone.decks(self.budget), backbone.source_sites)
        self._waiting: deque[Request] = deque()
        self._reading: set[Deck] = set()
        self.on_step: Callable[[Outcomes, float], None] = lambda _out, _seconds: None
        self._has_source = bool(backbone.anatomy.source)
        # A source is read whole, by layers that see all of it.
        token_bytes = self.batch.decks[0].own.token_bytes
        self.prefixes = Prefixes(0 if self._has_source else prefix_bytes, token_bytes)

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._waiting or self.batch.rows)

    @property
    def waiting(self) -> int:
        """Prompts that no row has been found for yet."""
        return len(self._waiting)

    @property
    def waiting_refs(self) -> list[str]:
        """The experts of prompts that wait, by reference."""
        return [ref for r in list(self._waiting) for ref in r.prompt.selection.refs]

    def put(self, request: Request) -> None:
        """Take a prompt; its experts begin to load. May be called from any thread.

        Raises:
            NeverFits: its rows would not fit into memory if they were alone.
        """
        (own, source), deck = self._sizes(request), self.batch.decks[0]
        count = request.prompt.count
        needed = deck.own.bytes_for(own, count)
        if source:
            needed += deck.source.bytes_for(source, count)
        if needed > self.budget.total or count > self.max_rows:
            raise NeverFits(
                f"{count} texts of {own} tokens take {needed} bytes of keys and values, of "
                f"{self.budget.total} that are there, and {self.max_rows} may be written at one "
                "time; ask for fewer or shorter ones, or raise kv_bytes."
            )
        request.lease = self.tiers.hold(request.prompt.selection.refs)
        self._waiting.append(request)

    def step(self) -> None:
        """Let rows in, read, write one token each, and let rows go.

        A pass that fails as a whole ends what was in it; what waits is answered by later steps.
        """
        began, out = time.monotonic(), Outcomes()
        with torch.inference_mode():
            try:
                self._step(out)
            except Exception as error:
                error = as_exhausted(error)
                log.error("a step of %d rows failed", len(self.batch.rows), exc_info=error)
                for request in self._running():
                    self._end_request(request, out, error, wipe=True)
        out.tell()
        self.on_step(out, time.monotonic() - began)

    def _step(self, out: Outcomes) -> None:
        self._drop(out)
        self._admit(out)
        decks = [d for d in self.batch.decks if self.batch.on(d)]
        work = [(deck, self._plan(deck)) for deck in decks]
        out.read += sum(len(part) for _, plan in work for _, part in plan)
        jobs = [partial(self._advance, deck, reading) for deck, reading in work]
        for found in self.backbone.lanes.together(jobs):
            for rows, tokens in found:
                self._write(rows, tokens, out)

    def _plan(self, deck: Deck) -> list[tuple[Row, list[int]]]:
        """What a lane reads in this step; nothing, and it writes, where it read in the last one.

        Both in one step would keep what is read first waiting for its first token.
        """
        turn = deck in self._reading and any(r.next is not None for r in self.batch.on(deck))
        plan = self.batch.plan(deck, 0 if turn else self.chunk_tokens, whole=self._has_source)
        (self._reading.add if plan else self._reading.discard)(deck)
        return plan

    def _running(self) -> list[Request]:
        """The prompts whose texts are being written."""
        return list({row.request: None for row in self.batch.rows})

    def fail_all(self, error: Exception) -> None:
        """End everything, since nothing more will be written."""
        out = Outcomes()
        with torch.inference_mode():
            for request in self._running():
                self._end_request(request, out, error)
        while self._waiting:
            self._refuse(self._waiting.popleft(), error, out)
        out.tell()

    def _sizes(self, request: Request) -> tuple[int, int]:
        """Tokens of a row's own, and of its source."""
        read, write = len(request.prompt.tokens), request.prompt.sampling.max_tokens
        return (write + 2, read) if self._has_source else (read + write, 0)

    def _drop(self, out: Outcomes) -> None:
        """Free what nobody waits for, and what is late."""
        for request in self._running():
            if request.ticket.cancelled:
                self._end_request(request, out)
            elif request.is_late:
                self._end_request(request, out, _late())

    def _admit(self, out: Outcomes) -> None:
        """Let waiting prompts in, first come first served, as far as there is room.

        One whose experts are still on their way, or have namesakes that rows write by, lets others
        pass; if there is nothing else to do, it is waited for.
        """
        budget, room = self.chunk_tokens * len(self.batch.decks), True
        for request in list(self._waiting):
            assert request.lease is not None
            if (gone := request.ticket.cancelled) or request.is_late:
                self._turn_away(request, None if gone else _late(), out)
            elif room and budget > 0 and (request.lease.ready or not self.batch.rows):
                try:
                    experts = request.experts()
                except Exception as error:
                    if not isinstance(error, ExpertError):
                        log.exception("the experts of a prompt could not be loaded")
                    self._turn_away(request, as_exhausted(error), out)
                    continue
                if self.batch.may_join(experts) and (room := self._let_in(request, experts, out)):
                    self._waiting.remove(request)
                    budget -= len(request.prompt.tokens) - request.reused

    def _let_in(self, request: Request, experts: Sequence[ExpertWeights], out: Outcomes) -> bool:
        """Seat a prompt's rows; False where there is no room yet."""
        count = request.prompt.count
        if len(self.batch.rows) + count > self.max_rows:
            return False
        seated = self.batch.seats(*self._sizes(request), count, experts)
        if seated is None:
            return False
        deck, seats = seated
        rows = [self._row(request, deck, seat, i) for i, seat in enumerate(seats)]
        self.batch.join(rows, experts)
        out.reused += begin(rows[0], self.prefixes)
        return True

    def _row(self, request: Request, deck: Deck, seat: Any, index: int) -> Row:
        sampling, tokens = request.prompt.sampling, request.prompt.tokens
        own_ends = frozenset[int]() if sampling.ignore_eos else self.backbone.eos
        before = () if self._has_source else tokens
        drawing = Drawing(sampling, before, own_ends | sampling.stop_tokens, index)
        text = TextStream(self.backbone.tokenizer, before, sampling.stop)
        return Row(request, drawing, text, deck, seat)

    def _advance(self, deck: Deck, plan: Sequence[tuple[Row, list[int]]]) -> Sequence[Found]:
        """One lane's share of a step: rows, and what each writes next."""
        if not plan:
            steps = {row.seat: row.next for row in self.batch.on(deck) if row.next is not None}
            rows = [row for row in self.batch.on(deck) if row.seat in steps]
            mix = self.batch.mix_of(deck)
            drawn = _drawn(rows, deck.step(steps, mix))
            return signed([(rows, drawn)], mix, self.batch.on(deck))
        mix = self.batch.mix(deck, [row for row, _ in plan])
        logit_CV = deck.read([Reading(row.seat, part) for row, part in plan], mix)
        found: list[Found] = []
        for i, (row, _) in enumerate(plan):
            if not row.unread:
                rows = self.batch.spread(row)
                found.append((rows, _drawn(rows, logit_CV[i].expand(len(rows), -1))))
        return signed(found, mix, [row for row, _ in plan])

    def _write(self, rows: Sequence[Row], tokens: Sequence[Written | None], out: Outcomes) -> None:
        """One more token for these rows, and an end to those that have come to theirs."""
        for row, token in zip(rows, tokens, strict=True):
            if token is None and row.seat in row.deck:
                error = UnsoundLogits("The model's numbers overflowed; choose smaller weights.")
                self._end_request(row.request, out, error, wipe=True)
        now = time.monotonic()
        for row, token in zip(rows, tokens, strict=True):
            if token is not None and row.seat in row.deck:
                remember(row, self.prefixes)
                self._take(row, token, now, out)

    def _take(self, row: Row, token: Written, now: float, out: Outcomes) -> None:
        """Note a row's new token, and tell of it."""
        drawing, request = row.drawing, row.request
        drawing.written.append(token.token)
        row.next = token.token
        finish: Finish | None = None
        text = ""
        if token.token in drawing.ends:
            finish, text = "stop", row.text.end()
        else:
            may_stop = len(drawing.written) >= drawing.sampling.min_tokens
            text = row.text.push(token.token, may_stop=may_stop)
            if row.text.stopped:
                finish = "stop"
            elif len(drawing.written) >= drawing.sampling.max_tokens:
                finish, text = "length", text + row.text.end()
        index = request.prompt.first + drawing.index
        out.piece(request, Piece(index, text, (token,), finish), now)
        if finish:
            self.batch.leave(row)
            if not any(r.request is request for r in self.batch.rows):
                self._release(request)

    def _end_request(
        self, request: Request, out: Outcomes, error: Exception | None = None, *, wipe: bool = False
    ) -> None:
        """End all rows of a prompt."""
        for row in [r for r in self.batch.rows if r.request is request]:
            self.batch.leave(row, wipe=wipe)
        self._refuse(request, error, out)

    def _turn_away(self, request: Request, error: Exception | None, out: Outcomes) -> None:
        """See `_refuse`; of one that waits."""
        self._waiting.remove(request)
        self._refuse(request, error, out)

    def _refuse(self, request: Request, error: Exception | None, out: Outcomes) -> None:
        """Let a prompt go, and tell its caller why, if there still is one."""
        self._release(request)
        if error is not None:
            out.error(request, error)

    def _release(self, request: Request) -> None:
        if request.lease is not None:
            request.lease.release()


def _drawn(rows: Sequence[Row], logit_BV: Tensor) -> list[Written | None]:
    return draw(logit_BV, [row.drawing for row in rows])


def _late() -> DeadlinePassed:
    return DeadlinePassed("The deadline passed before the answer was complete.")
