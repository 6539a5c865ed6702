// Draws what the page's data block holds: curves on a shared axis of steps, and maps of embeddings.
"use strict";
(() => {
  const HEIGHT = 220;
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const sync = uPlot.sync("steps");
  const hiddenRuns = new Set();
  const curves = new Map(); // by name of the chart: what draws it
  let maps = [];
  let data = readData(document);

  function readData(page) {
    return JSON.parse(page.getElementById("data").textContent);
  }

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function color(number) {
    return css(`--series-${number % 8}`);
  }

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function format(value, percent) {
    if (value === null || value === undefined) return "not a number";
    if (percent) return `${(100 * value).toFixed(1)} %`;
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: 5 });
  }

  function axes(chart) {
    const common = {
      stroke: () => css("--muted"),
      grid: { stroke: () => css("--grid"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const short = (value) => (chart.percent ? `${Math.round(100 * value)} %` : compact(value));
    return [
      { ...common, values: (_, ticks) => ticks.map(compact), size: 30 },
      { ...common, values: (_, ticks) => ticks.map(short), size: 54 },
    ];
  }

  function compact(value) {
    const size = Math.abs(value);
    if (size !== 0 && size < 1e-3) return value.toExponential(0);
    if (size >= 1e4) return `${+(value / 1000).toFixed(1)}k`;
    return `${+value.toPrecision(5)}`;
  }

  function range(chart) {
    return (_, low, high) => {
      if (low === null || high === null) return [0, 1];
      if (chart.percent) return [0, 1];
      if (chart.zero) return [Math.min(0, low), high > 0 ? 1.08 * high : 1];
      const margin = 0.08 * (high - low) || 0.05 * Math.abs(high) || 1;
      return [low - margin, high + margin];
    };
  }

  // Two measurements are no curve: they are drawn as points.
  function isCurve(curve) {
    return curve.constant || curve.x.length > 2;
  }

  class Curves {
    constructor(place, chart) {
      this.place = place;
      this.hidden = new Set();
      this.tip = make("div", "tip");
      this.tip.hidden = true;
      this.legend = place.parentElement.querySelector(".legend");
      this.build(chart);
      place.append(this.tip);
      takeKeys(place, (event) => this.onKey(event));
      place.addEventListener("blur", () => this.leave());
      new ResizeObserver(() => this.resize()).observe(place);
    }

    build(chart) {
      this.chart = chart;
      this.labels = [...new Set(chart.curves.map((curve) => curve.label))];
      const many = data.runs.length > 1;
      const style = chart.curves.map((curve) => {
        const label = this.labels.indexOf(curve.label);
        return { number: many ? curve.run : label, dash: many ? DASHES[label % 4] : [] };
      });
      const series = chart.curves.map((curve, number) => ({
        label: curve.label,
        stroke: () => color(style[number].number),
        width: 2,
        dash: curve.constant ? [4, 4] : style[number].dash,
        ...(isCurve(curve) ? {} : { paths: () => null }),
        points: {
          show: !curve.constant && curve.x.length < 40,
          size: 5,
          fill: () => color(style[number].number),
        },
      }));
      this.style = style;
      if (this.plot) this.plot.destroy();
      this.plot = new uPlot(
        {
          width: Math.max(this.place.clientWidth, 100),
          height: HEIGHT,
          scales: { x: { time: false, range: (_, low, high) => [low, high] }, y: { range: range(chart) } },
          series: [{}, ...series],
          axes: axes(chart),
          legend: { show: false },
          cursor: {
            sync: { key: sync.key, setSeries: false },
            drag: { x: true, y: false },
            points: { size: 7 },
            focus: { prox: 30 },
          },
          hooks: {
            setCursor: [() => this.showTip()],
          },
        },
        this.table(),
        this.place,
      );
      this.plot.over.addEventListener("mouseenter", () => (this.isInside = true));
      this.plot.over.addEventListener("mouseleave", () => this.leave());
      this.writeLegend();
      this.show();
    }

    // Steps 0 and last are in every table, so that all charts have the same axis.
    table() {
      const tables = this.chart.curves.map((curve) => [curve.x, curve.y]);
      return uPlot.join([...tables, [[0, Math.max(data.last, 1)]]]);
    }

    isZoomed() {
      const { min, max } = this.plot.scales.x;
      return min !== this.plot.data[0][0] || max !== this.plot.data[0].at(-1);
    }

    shape(chart) {
      const style = (curve) => [curve.run, curve.label, curve.constant, curve.x.length < 40, isCurve(curve)];
      return JSON.stringify(chart.curves.map(style));
    }

    update(chart) {
      if (this.shape(chart) !== this.shape(this.chart)) {
        this.build(chart);
      } else {
        const isZoomed = this.isZoomed();
        this.chart = chart;
        this.plot.setData(this.table(), !isZoomed);
        if (isZoomed) this.plot.redraw();
      }
    }

    writeLegend() {
      this.legend.replaceChildren();
      if (this.labels.length < 2) return;
      this.labels.forEach((label, number) => {
        const many = data.runs.length > 1;
        const constant = this.chart.curves.some((c) => c.label === label && c.constant);
        const dash = constant ? 1 : many ? number : 0;
        const button = legendButton(label, many ? null : number, dash, !this.hidden.has(label));
        button.addEventListener("click", () => {
          toggle(this.hidden, label, button);
          this.show();
        });
        this.legend.append(button);
      });
    }

    show() {
      this.chart.curves.forEach((curve, number) => {
        const show = !hiddenRuns.has(data.runs[curve.run]) && !this.hidden.has(curve.label);
        if (this.plot.series[number + 1].show !== show) this.plot.setSeries(number + 1, { show });
      });
    }

    resize() {
      const width = this.place.clientWidth;
      if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
    }

    leave() {
      this.isInside = false;
      this.tip.hidden = true;
    }

    onKey(event) {
      const steps = this.plot.data[0];
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length };
      if (event.key === "Escape") return this.leave();
      if (!(event.key in moves) || !steps.length) return;
      event.preventDefault();
      const from = this.isInside ? (this.plot.cursor.idx ?? 0) : -1;
      const index = Math.min(Math.max(from + moves[event.key], 0), steps.length - 1);
      this.isInside = true;
      const left = this.plot.valToPos(steps[index], "x");
      this.plot.setCursor({ left, top: HEIGHT / 3 });
      speak(this.tip.innerText.replaceAll("\n", ", "));
    }

    showTip() {
      const { left, idx } = this.plot.cursor;
      if (!this.isInside || idx === null || idx === undefined || left < 0) {
        this.tip.hidden = true;
        return;
      }
      const step = this.plot.data[0][idx];
      this.tip.replaceChildren(make("div", "tip-title", `step ${step.toLocaleString("en")}`));
      this.chart.curves.forEach((curve, number) => {
        if (!this.plot.series[number + 1].show) return;
        const at = nearest(curve.x, step);
        const row = make("div", "tip-row");
        const mark = make("span", "mark");
        mark.style.background = color(this.style[number].number);
        const run = data.runs.length > 1 ? `${data.runs[curve.run]} · ` : "";
        const where = curve.x[at] === step || curve.constant ? "" : ` (step ${curve.x[at]})`;
        const value = make("b", "", format(curve.y[at], this.chart.percent));
        row.append(mark, make("span", "tip-name", `${run}${curve.label}${where}`), value);
        this.tip.append(row);
      });
      this.tip.hidden = false;
      const x = left + this.plot.over.offsetLeft;
      const room = this.place.clientWidth - this.tip.offsetWidth - 4;
      const side = x + 14 <= room ? x + 14 : x - this.tip.offsetWidth - 14;
      this.tip.style.left = `${Math.min(Math.max(side, 4), Math.max(room, 4))}px`;
    }
  }

  // Keys reach a picture only if screen readers do not take them to be for reading.
  function takeKeys(place, onKey) {
    place.tabIndex = 0;
    place.setAttribute("role", "application");
    place.addEventListener("keydown", onKey);
  }

  function speak(text) {
    document.getElementById("spoken").textContent = text;
  }

  function nearest(steps, step) {
    let best = 0;
    for (let i = 1; i < steps.length; i++) {
      if (Math.abs(steps[i] - step) <= Math.abs(steps[best] - step)) best = i;
    }
    return best;
  }

  function toggle(hidden, name, button) {
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
  }

  function legendButton(label, number, dash, pressed) {
    const button = make("button", "key");
    button.type = "button";
    button.setAttribute("aria-pressed", String(pressed));
    const line = make("span", `line dash-${dash % 4}`);
    line.style.setProperty("--line", number === null ? "var(--muted)" : `var(--series-${number % 8})`);
    button.append(line, document.createTextNode(label));
    return button;
  }

  function drawRunLegend() {
    const legend = document.getElementById("runs-legend");
    if (data.runs.length < 2) return;
    legend.replaceChildren();
    data.runs.forEach((name, number) => {
      const button = legendButton(name, number, 0, !hiddenRuns.has(name));
      button.addEventListener("click", () => {
        toggle(hiddenRuns, name, button);
        for (const chart of curves.values()) chart.show();
      });
      legend.append(button);
    });
  }

  function drawCurves() {
    drawRunLegend();
    for (const chart of data.charts) {
      const place = document.querySelector(`[data-chart="${CSS.escape(chart.name)}"]`);
      if (!place) continue;
      const known = curves.get(chart.name);
      if (known) known.update(chart);
      else curves.set(chart.name, new Curves(place, chart));
    }
  }

  // Maps of embeddings: every class is a series of its own, so that it can be set apart.

  const SHAPES = [
    (path, x, y, r) => path.arc(x, y, r, 0, 2 * Math.PI),
    (path, x, y, r) => path.rect(x - r, y - r, 2 * r, 2 * r),
    (path, x, y, r) => polygon(path, [[x, y - 1.3 * r], [x + 1.3 * r, y], [x, y + 1.3 * r], [x - 1.3 * r, y]]),
    (path, x, y, r) => polygon(path, [[x, y - 1.2 * r], [x + 1.2 * r, y + r], [x - 1.2 * r, y + r]]),
  ];

  function polygon(path, corners) {
    corners.forEach(([x, y], number) => (number ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }

  function drawPoints(plot, seriesIndex) {
    const [xs, ys] = plot.data[seriesIndex];
    const { ctx } = plot;
    const { classNumber: number, look } = plot.series[seriesIndex];
    const radius = (xs.length > 300 ? 2.6 : 3.4) * devicePixelRatio;
    const path = new Path2D();
    for (let i = 0; i < xs.length; i++) {
      const x = plot.valToPos(xs[i], "x", true);
      const y = plot.valToPos(ys[i], "y", true);
      path.moveTo(x + radius, y);
      SHAPES[look[1]](path, x, y, radius);
    }
    ctx.save();
    ctx.globalAlpha = plot.faded && !plot.faded.has(number) ? 0.07 : 0.8;
    // Without a label, beside classes, which have all colors: in none of them.
    const unlabeled = css(plot.series.length > 2 ? "--edge" : "--series-0");
    ctx.fillStyle = number < 0 ? unlabeled : color(look[0]);
    ctx.fill(path);
    ctx.restore();
    return null;
  }

  class EmbeddingMap {
    constructor(place, atlas) {
      this.place = place;
      this.atlas = atlas;
      this.points = atlas[place.dataset.when];
      this.sheet = document.getElementById(`sheet-${atlas.run}`);
      this.tip = make("div", "tip thumb");
      this.tip.hidden = true;
      this.canvas = make("canvas");
      this.canvas.width = this.canvas.height = 96;
      this.words = make("div", "");
      this.tip.append(this.canvas, this.words);
      this.build();
      place.append(this.tip);
      this.order = [...this.points[0].keys()].sort((a, b) => this.points[0][a] - this.points[0][b]);
      this.at = -1; // in that order, from left to right
      takeKeys(place, (event) => this.onKey(event));
      place.addEventListener("blur", () => (this.tip.hidden = true));
      place.addEventListener("mousemove", (event) => this.onMove(event));
      place.addEventListener("mouseleave", () => (this.tip.hidden = true));
      place.addEventListener("click", (event) => this.onMove(event));
      new ResizeObserver(() => this.resize()).observe(place);
    }

    build() {
      const numbers = [...new Set(this.atlas.labels)].sort((a, b) => a - b);
      const members = numbers.map((number) =>
        this.atlas.labels.flatMap((label, i) => (label === number ? [i] : [])),
      );
      const [xs, ys] = this.points;
      const pick = (values, indices) => indices.map((i) => values[i]);
      const border = (values) => {
        const low = Math.min(...values);
        const high = Math.max(...values);
        const margin = 0.04 * (high - low) || 1;
        return [low - margin, high + margin];
      };
      const width = Math.max(this.place.clientWidth, 100);
      this.plot = new uPlot(
        {
          mode: 2,
          width,
          height: this.height(width),
          padding: [4, 4, 4, 4],
          scales: {
            x: { time: false, range: () => border(xs) },
            y: { range: () => border(ys) },
          },
          series: [{}, ...numbers.map((classNumber) => this.series(classNumber))],
          axes: [{ show: false }, { show: false }],
          legend: { show: false },
          cursor: { show: false },
        },
        [null, ...members.map((indices) => [pick(xs, indices), pick(ys, indices)])],
        this.place,
      );
    }

    series(classNumber) {
      return { classNumber, look: this.atlas.looks[classNumber] ?? [0, 0], paths: drawPoints };
    }

    height(width) {
      return Math.min(Math.round(0.9 * width), 460);
    }

    resize() {
      const width = this.place.clientWidth;
      if (!width || width === this.plot.width) return;
      this.plot.setSize({ width, height: this.height(width) });
    }

    fade(kept) {
      this.plot.faded = kept;
      this.plot.redraw();
    }

    onMove(event) {
      const box = this.plot.over.getBoundingClientRect();
      const [left, top] = [event.clientX - box.left, event.clientY - box.top];
      const [xs, ys] = this.points;
      let best = -1;
      let least = 400; // square pixels
      for (let i = 0; i < xs.length; i++) {
        const dx = this.plot.valToPos(xs[i], "x") - left;
        const dy = this.plot.valToPos(ys[i], "y") - top;
        if (dx * dx + dy * dy < least && !this.isFaded(i)) {
          least = dx * dx + dy * dy;
          best = i;
        }
      }
      this.tip.hidden = best < 0;
      if (best >= 0) this.showThumb(best);
    }

    onKey(event) {
      const visible = this.order.filter((index) => !this.isFaded(index));
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -visible.length, End: visible.length };
      if (event.key === "Escape") this.tip.hidden = true;
      if (!(event.key in moves) || !visible.length) return;
      event.preventDefault();
      this.at = Math.min(Math.max(this.at + moves[event.key], 0), visible.length - 1);
      this.tip.hidden = false;
      this.showThumb(visible[this.at]);
      speak(this.words.textContent);
    }

    isFaded(index) {
      return this.plot.faded && !this.plot.faded.has(this.atlas.labels[index]);
    }

    showThumb(index) {
      const { tile, columns, classes, labels, names } = this.atlas;
      const context = this.canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      const [row, column] = [Math.floor(index / columns), index % columns];
      context.drawImage(this.sheet, column * tile, row * tile, tile, tile, 0, 0, 96, 96);
      const label = classes[labels[index]];
      this.words.textContent = [label, names[index]].filter((text) => text !== undefined).join(" · ");
      const x = this.plot.valToPos(this.points[0][index], "x") + this.plot.over.offsetLeft;
      const y = this.plot.valToPos(this.points[1][index], "y") + this.plot.over.offsetTop;
      const [wide, high] = [this.tip.offsetWidth, this.tip.offsetHeight];
      const side = x + 12 + wide > this.place.clientWidth ? x - wide - 12 : x + 12;
      this.tip.style.left = `${Math.max(side, 0)}px`;
      this.tip.style.top = `${Math.max(Math.min(y - high / 2, this.place.clientHeight - high), 0)}px`;
    }
  }

  function drawMaps() {
    const gone = maps.filter((map) => !map.place.isConnected); // exchanged for new ones
    for (const map of gone) map.plot.destroy();
    maps = maps.filter((map) => !gone.includes(map));
    for (const atlas of data.atlases) {
      const places = [...document.querySelectorAll(`[data-atlas="${atlas.run}"]:empty`)];
      if (!places.length) continue;
      const own = places.map((place) => new EmbeddingMap(place, atlas));
      maps.push(...own);
      drawClassLegend(atlas, own);
    }
  }

  // Pressed classes stay visible, the others fade; with none pressed all are visible.
  function drawClassLegend(atlas, own) {
    const legend = document.getElementById(`classes-${atlas.run}`);
    if (!legend) return;
    const kept = new Set();
    legend.replaceChildren();
    atlas.classes.forEach((name, number) => {
      const button = make("button", "key");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(swatch(atlas.looks[number]), document.createTextNode(name));
      button.addEventListener("click", () => {
        if (!kept.delete(number)) kept.add(number);
        button.setAttribute("aria-pressed", String(kept.has(number)));
        for (const map of own) map.fade(kept.size ? kept : null);
      });
      legend.append(button);
    });
  }

  function swatch([number, shape]) {
    const mark = make("span", `swatch shape-${shape}`);
    mark.style.setProperty("--line", `var(--series-${number})`);
    return mark;
  }

  // Light and dark

  const THEMES = ["auto", "light", "dark"];

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    document.getElementById("theme-name").textContent = theme;
    redraw();
  }

  function redraw() {
    for (const chart of curves.values()) chart.plot.redraw();
    for (const map of maps) map.plot.redraw();
  }

  function startTheme() {
    let theme = "auto";
    try {
      theme = localStorage.getItem("byol_jax-theme") ?? "auto";
    } catch {
      // A page without storage begins anew each time.
    }
    setTheme(THEMES.includes(theme) ? theme : "auto");
    document.getElementById("theme").addEventListener("click", () => {
      const now = document.documentElement.dataset.theme;
      const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
      setTheme(next);
      try {
        localStorage.setItem("byol_jax-theme", next);
      } catch {
        // As above.
      }
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    let before;
    addEventListener("beforeprint", () => {
      before = document.documentElement.dataset.theme;
      setTheme("light");
    });
    addEventListener("afterprint", () => setTheme(before));
  }

  // A live page asks whether there is something new, and exchanges the parts that differ.

  const parts = new Map();

  function collectParts(page) {
    return new Map([...page.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  }

  async function refresh() {
    const answer = await fetch("/", { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = collectParts(page);
    const charts = readData(page).charts.map((chart) => chart.name).join();
    const isSame = [...fresh.keys()].join() === [...parts.keys()].join();
    if (!isSame || charts !== data.charts.map((chart) => chart.name).join()) {
      location.reload();
      return;
    }
    let hasNewMaps = false;
    for (const [name, part] of fresh) {
      if (part.innerHTML === parts.get(name)) continue;
      parts.set(name, part.innerHTML);
      const place = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
      const open = [...place.querySelectorAll("details")].map((details) => details.open);
      place.innerHTML = part.innerHTML;
      place.querySelectorAll("details").forEach((details, i) => (details.open = open[i] ?? details.open));
      hasNewMaps ||= name.startsWith("atlas");
    }
    data = readData(page);
    drawCurves();
    if (hasNewMaps) drawMaps();
  }

  async function watch() {
    for (const [name, part] of collectParts(document)) parts.set(name, part.innerHTML);
    const status = document.getElementById("live");
    let version = document.body.dataset.version;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 2000));
      try {
        const answer = await (await fetch("/version", { cache: "no-store" })).text();
        status.textContent = "live";
        if (answer !== version) await refresh();
        version = answer;
      } catch {
        status.textContent = "not connected: the command that serves this page has ended";
      }
    }
  }

  // A phone shows what matters first.
  function foldOnPhones() {
    if (!matchMedia("(max-width: 720px)").matches) return;
    for (const part of document.querySelectorAll("details.fold")) part.open = false;
  }

  foldOnPhones();
  if (document.body.dataset.version) watch();
  startTheme();
  drawCurves();
  drawMaps();
})();
