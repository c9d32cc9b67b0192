// The token heat map: a row a layer or a site, a column a token, coloured by the expert that weighs
// most there. Draws what is in view and no more, so that long inputs scroll as short ones do.
// Walks by arrow keys; every cell can be heard as well as seen, and letters stand beside colours.
// Knows the map that `server/console/reading.py` made, and nothing of servers.

const CELL = 22, HEAD = 92, RULE = 2, MOST = 6;
const LABEL = innerWidth < 600 ? 110 : 190;

// What is readable on a colour that lies over the ground by a part (WCAG 2.2, relative luminance).
const channel = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const light = (rgb) => rgb.reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * channel(c / 255), 0);
const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const blended = (hex, part, ground) => parts(hex).map((c, i) => part * c + (1 - part) * ground[i]);
const inkOn = (rgb) => (light(rgb) > 0.179 ? "#000000" : "#ffffff");

export default {
  template: `
    <div class="heat">
      <p class="heat-text" v-if="map"><span v-for="(token, t) in map.tokens" :key="t"
        :class="{ written: t >= read, here: t === at.token }" :style="ink(t)" :title="say(at.row, t)"
        @click="go(at.row, t)">{{ shown(token) }}</span></p>
      <div class="heat-tools" v-if="map && !map.even">
        <label><input type="checkbox" v-model="bySite" @change="turn"> every site</label>
        <span class="heat-hint">Arrow keys walk through the map.</span>
      </div>
      <div class="heat-frame" ref="frame" tabindex="0" role="application"
           aria-label="Heat map of experts by layer and token: walk by arrow keys"
           aria-describedby="heat-said" @scroll="draw" @keydown="walk" @mousemove="point"
           @mouseleave="leave" @click="pick" :style="{ height: height + 'px' }" v-show="map">
        <div :style="{ width: width + 'px', height: full + 'px' }"></div>
        <canvas ref="canvas" aria-hidden="true"></canvas>
      </div>
      <p class="heat-said" id="heat-said" aria-live="polite">{{ told }}</p>
      <p class="heat-hover" aria-hidden="true">{{ hovered }}</p>
    </div>`,

  data: () => ({ map: null, bySite: false, at: { row: 0, token: 0 }, hover: null, seen: 0 }),

  computed: {
    read() { return this.map ? this.map.tokens.length - this.map.written : 0; },
    rows() { return this.map ? (this.bySite || this.map.even ? this.sites : this.layers) : []; },
    sites() {
      return this.map.rows.map((r) => ({
        label: r.layer < 0 ? r.part : `${r.layer} ${r.part}`, site: r.site, layer: r.layer,
        first: r.first, weights: r.weights_ET,
      }));
    },
    // The mean over a layer's sites that see the same tokens.
    layers() {
      const groups = new Map();
      for (const r of this.map.rows) {
        const count = r.weights_ET.length ? r.weights_ET[0].length : 0;
        const key = [r.stack, r.layer, r.first, count, r.layer < 0 ? r.part : ""].join("|");
        if (!groups.has(key)) groups.set(key, { first: r.first, of: [], name: `${r.stack} layer ${r.layer}` });
        groups.get(key).of.push(r);
      }
      return [...groups.values()].map((g) => ({
        label: g.of[0].layer < 0 ? g.of[0].part : g.name, site: `${g.of.length} sites`,
        layer: g.of[0].layer, first: g.first,
        weights: g.of[0].weights_ET.map((_, e) => g.of[0].weights_ET[e].map(
          (_, t) => g.of.reduce((sum, r) => sum + r.weights_ET[e][t], 0) / g.of.length)),
      }));
    },
    width() { return LABEL + (this.map ? this.map.tokens.length : 0) * CELL; },
    full() { return HEAD + this.rows.length * CELL; },
    height() { return Math.min(this.full + 16, 560); },
    told() { return this.map ? this.say(this.at.row, this.at.token) : ""; },
    hovered() { return this.map && this.hover ? this.say(this.hover.row, this.hover.token) : ""; },
  },

  mounted() {
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.$refs.frame);
    this.dark = new MutationObserver(() => this.draw());
    this.dark.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.settle();
  },
  unmounted() { this.watcher.disconnect(); this.dark.disconnect(); },

  methods: {
    // Frozen, so that Vue does not watch every number of it.
    show(map) {
      this.map = map && Object.freeze(map);
      this.at = { row: 0, token: 0 };
      this.hover = null;
      this.settle();
    },
    shown(token) { return token.replace(/\n/g, "\u21b5").replace(/^$/, "\u2205"); },
    cell(row, token) {
      const r = this.rows[row], t = token - (r ? r.first : 0);
      if (!r || t < 0 || !r.weights.length || t >= r.weights[0].length) return null;
      return this.map.experts.map((e, i) => ({ ...e, weight: r.weights[i][t] }))
        .filter((e) => e.weight > 0).sort((a, b) => b.weight - a.weight);
    },
    say(row, token) {
      if (!this.map || !this.rows[row]) return "";
      const cell = this.cell(row, token), r = this.rows[row];
      const where = `"${this.shown(this.map.tokens[token]).trim()}" in ${r.label}: `;
      if (!cell || !cell.length) return where + "not seen there";
      const more = cell.length > MOST ? `, and ${cell.length - MOST} more` : "";
      const told = cell.slice(0, MOST).map((e) => `${e.letter} ${e.id} ${e.weight.toFixed(2)}`);
      return where + told.join(", ") + more;
    },
    ink(token) {
      const cell = this.cell(this.at.row, token);
      if (!cell || !cell.length) return {};
      const part = Math.round(25 + 75 * Math.min(1, cell[0].weight));
      return { borderBottomColor: cell[0].colour, "--part": part + "%", "--colour": cell[0].colour };
    },
    go(row, token) {
      const rows = this.rows.length, tokens = this.map.tokens.length;
      this.at = {
        row: Math.max(0, Math.min(rows - 1, row)), token: Math.max(0, Math.min(tokens - 1, token)),
      };
      const f = this.$refs.frame, x = this.at.token * CELL, y = this.at.row * CELL;
      const wide = f.clientWidth - LABEL, high = f.clientHeight - HEAD;
      if (x < f.scrollLeft) f.scrollLeft = x;
      if (x + CELL > f.scrollLeft + wide) f.scrollLeft = x + CELL - wide;
      if (y < f.scrollTop) f.scrollTop = y;
      if (y + CELL > f.scrollTop + high) f.scrollTop = y + CELL - high;
      this.draw();
    },
    walk(event) {
      const { row, token } = this.at, far = 10, tokens = this.map ? this.map.tokens.length : 0;
      const steps = {
        ArrowLeft: [row, token - 1], ArrowRight: [row, token + 1], ArrowUp: [row - 1, token],
        ArrowDown: [row + 1, token], Home: [row, 0], End: [row, tokens - 1],
        PageUp: [row, token - far], PageDown: [row, token + far],
      };
      if (!this.map || !steps[event.key]) return;
      event.preventDefault();
      this.hover = null;
      this.go(...steps[event.key]);
    },
    under(event) {
      const box = this.$refs.frame.getBoundingClientRect(), f = this.$refs.frame;
      const x = event.clientX - box.left, y = event.clientY - box.top;
      if (x < LABEL || y < HEAD) return null;
      const token = Math.floor((x - LABEL + f.scrollLeft) / CELL);
      const row = Math.floor((y - HEAD + f.scrollTop) / CELL);
      return row < this.rows.length && token < this.map.tokens.length ? { row, token } : null;
    },
    // The same layer, by its sites or as a whole.
    turn() {
      const was = (this.bySite ? this.layers : this.sites)[this.at.row], first = was ? was.layer : 0;
      this.at = { ...this.at, row: Math.max(0, this.rows.findIndex((r) => r.layer === first)) };
      this.settle();
    },
    leave() { this.hover = null; this.draw(); },
    point(event) { if (this.map) { this.hover = this.under(event); this.draw(); } },
    pick(event) { const c = this.map && this.under(event); if (c) this.go(c.row, c.token); },
    settle() { this.$nextTick(() => this.map && this.$refs.frame && this.go(this.at.row, this.at.token)); },

    draw() {
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
    },
    paint() {
      const f = this.$refs.frame, canvas = this.$refs.canvas;
      if (!f || !this.map || !f.clientWidth) return;
      const ratio = window.devicePixelRatio || 1, w = f.clientWidth, h = f.clientHeight;
      if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
        canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
        canvas.style.width = w + "px"; canvas.style.height = h + "px";
      }
      canvas.style.transform = `translate(${f.scrollLeft}px, ${f.scrollTop}px)`;
      const pen = canvas.getContext("2d"), style = getComputedStyle(f), ink = style.color;
      this.ground = (style.backgroundColor.match(/\d+/g) || [255, 255, 255]).slice(0, 3).map(Number);
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, w, h);
      pen.font = "12px system-ui, sans-serif";
      pen.textBaseline = "middle";
      const t0 = Math.floor(f.scrollLeft / CELL), r0 = Math.floor(f.scrollTop / CELL);
      const t1 = Math.min(this.map.tokens.length, t0 + Math.ceil((w - LABEL) / CELL) + 1);
      const r1 = Math.min(this.rows.length, r0 + Math.ceil((h - HEAD) / CELL) + 1);
      const x = (t) => LABEL + t * CELL - f.scrollLeft, y = (r) => HEAD + r * CELL - f.scrollTop;
      pen.save(); this.within(pen, LABEL, HEAD, w, h);
      for (let r = r0; r < r1; r++) for (let t = t0; t < t1; t++) this.paintCell(pen, r, t, x(t), y(r));
      this.frame(pen, x(this.at.token), y(this.at.row), ink);
      if (this.hover) this.frame(pen, x(this.hover.token), y(this.hover.row), ink);
      pen.restore();
      pen.save(); this.within(pen, LABEL, 0, w, HEAD); pen.fillStyle = ink;
      for (let t = t0; t < t1; t++) {
        pen.save(); pen.translate(x(t) + CELL / 2, HEAD - 6); pen.rotate(-Math.PI / 3);
        pen.globalAlpha = t < this.read ? 1 : 0.7;
        pen.fillText(this.shown(this.map.tokens[t]).trim().slice(0, 12), 0, 0); pen.restore();
      }
      pen.restore();
      pen.save(); this.within(pen, 0, HEAD, LABEL - 6, h); pen.fillStyle = ink;
      for (let r = r0; r < r1; r++) pen.fillText(this.rows[r].label, 4, y(r) + CELL / 2);
      pen.restore();
      this.seen += 1;
    },
    within(pen, left, top, right, bottom) {
      pen.beginPath(); pen.rect(left, top, right - left, bottom - top); pen.clip();
    },
    paintCell(pen, row, token, x, y) {
      const cell = this.cell(row, token);
      if (!cell || !cell.length) return;
      const best = cell[0];
      const colour = blended(best.colour, 0.25 + 0.75 * Math.min(1, best.weight), this.ground);
      pen.fillStyle = `rgb(${colour.join(" ")})`;
      pen.fillRect(x, y, CELL - RULE, CELL - RULE);
      pen.fillStyle = inkOn(colour);
      pen.textAlign = "center";
      pen.fillText(best.letter, x + CELL / 2 - RULE / 2, y + CELL / 2);
      pen.textAlign = "start";
    },
    frame(pen, x, y, ink) {
      pen.strokeStyle = ink; pen.lineWidth = 2; pen.strokeRect(x, y, CELL - RULE, CELL - RULE);
    },
  },
};
