"use strict";
// The Pareto plot with its drawings, and sortable tables. Everything shown comes from the JSON in the page, and is
// inserted as text, never as HTML.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes = {}, text = "") => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  };
  const html = (name, className, text = "") => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  };

  // ---- tables ----------------------------------------------------------------------------------------------------

  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined || text === "" ? null : isNaN(text) ? text : Number(text);
  };

  function sortBy(table, column) {
    const header = table.tHead.rows[0].cells[column];
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const compare = (a, b) => (typeof a === typeof b && typeof a === "number" ? a - b : `${a}`.localeCompare(`${b}`));
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      if (a === null || b === null) return (a === null) - (b === null); // rows without a figure stay at the end
      return sign * compare(a, b);
    });
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, cell] of [...table.tHead.rows[0].cells].entries()) {
      const button = html("button", "sort", cell.textContent.trim());
      button.type = "button";
      button.addEventListener("click", () => sortBy(table, column));
      cell.replaceChildren(button);
    }
  }

  // Sections that are folded on the screen are printed unfolded.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => folded.forEach((part) => (part.open = false)));

  // ---- the trade-off -----------------------------------------------------------------------------------------------

  const source = document.getElementById("sweep-data");
  if (!source) return;
  const { networks, axes, graph, edges } = JSON.parse(source.textContent);
  const plot = document.getElementById("plot");
  const tip = document.getElementById("tip");
  const drawing = document.getElementById("drawing");
  const chosen = { x: document.getElementById("axis-x"), y: document.getElementById("axis-y") };
  const axis = (which) => axes[which].find((a) => a.key === chosen[which].value);
  const show = (a, v) => `${(v * a.scale).toFixed(a.digits)}${a.unit && ` ${a.unit}`}`;
  const edgesOf = (network) => (edges ? `${network.edges} of ${edges} edges` : `${network.edges} edges`);
  const has = (network, ...keys) => keys.every((key) => network[key] !== null);
  const MARGIN = { top: 38, right: 18, bottom: 46, left: 52 };
  const NEAR = 28; // largest distance in pixels at which the pointer picks a point
  const STAR = "M0-9.5 2.3-3.1 9-2.9 3.7 1.2 5.6 7.7 0 3.9-5.6 7.7-3.7 1.2-9-2.9-2.3-3.1Z";
  let placed = new Map(); // network -> its place in the plot, for networks that have both figures

  const frame = make("g", { "aria-hidden": "true" });
  const front = make("path", { class: "front", "aria-hidden": "true" });
  const marks = make("g");
  const svg = make("svg", { role: "group", "aria-label": "Networks by cost and error" });
  svg.append(frame, front, marks);
  plot.prepend(svg);

  function describe(network) {
    const [x, y] = [axis("x"), axis("y")];
    const lines = network.asked ? [network.asked] : [];
    if (has(network, "edges")) lines.push(edgesOf(network));
    for (const cost of axes.x) {
      if (has(network, cost.key)) lines.push(`${show(cost, network[cost.key])} ${cost.short}`.trim());
    }
    if (has(network, y.key)) lines.push(`${y.label} ${show(y, network[y.key])}${y.images ? `, ${y.images} images` : ""}`);
    return lines;
  }

  const points = new Map(
    networks.map((network) => {
      const look = network.star ? "star" : `series-${network.series % 4}`;
      const mark = make("g", { class: `mark ${look}`, tabindex: "0", role: "button" });
      mark.dataset.network = network.id;
      mark.append(make("circle", { class: "halo", r: 12 }));
      mark.append(network.star ? make("path", { class: "dot", d: STAR }) : make("circle", { class: "dot", r: 5.5 }));
      mark.addEventListener("focus", () => point(network));
      mark.addEventListener("blur", () => point(null));
      mark.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          select(network);
        } else if (event.key === "Escape") point(null);
        else if (event.key.startsWith("Arrow")) {
          const order = [...placed.keys()];
          const step = event.key === "ArrowRight" || event.key === "ArrowUp" ? 1 : -1;
          const next = order[order.indexOf(network) + step];
          event.preventDefault();
          if (next) points.get(next).focus();
        }
      });
      return [network, mark];
    }),
  );

  function linear(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) {
      ticks.push({ at: i * step, text: (i * step).toFixed(digits) });
    }
    return { note: "", share: (v) => (v - low) / (high - low), ticks };
  }

  function logarithmic(low, high) {
    const at = (multiples) => {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const m of multiples) {
          ticks.push({ at: m * 10 ** power, text: (m * 10 ** power).toFixed(Math.max(0, -power)) });
        }
      }
      return ticks.filter((tick) => tick.at >= low && tick.at <= high);
    };
    const few = at([1, 2, 5]);
    const share = (v) => Math.log(v / low) / Math.log(high / low);
    return { note: ", logarithmic", share, ticks: few.length > 3 ? few : at([1, 2, 3, 4, 5, 7]) };
  }

  // A scale from the smallest to the largest value with a margin, logarithmic if the values differ by more than 3x.
  function scaleOf(values, count) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (low > 0 && high > 3 * low) return logarithmic(low / (high / low) ** 0.06, high * (high / low) ** 0.06);
    const pad = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
    return linear(low - pad, high + pad, count);
  }

  // The pruned networks, sorted by cost, that are more accurate than all others of equal or lower cost.
  function frontier(shown, x, y) {
    let best = Infinity;
    return shown
      .filter((network) => !network.star)
      .sort((a, b) => a[x.key] - b[x.key] || a[y.key] - b[y.key])
      .filter((network) => network[y.key] < best && ((best = network[y.key]), true));
  }

  function draw() {
    const [x, y] = [axis("x"), axis("y")];
    const width = plot.clientWidth;
    const height = Math.round(Math.min(460, Math.max(280, 0.56 * width)));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const shown = networks.filter((network) => has(network, x.key, y.key));
    const inner = { right: width - MARGIN.right, bottom: height - MARGIN.bottom };
    const scale = {
      x: scaleOf(shown.map((network) => network[x.key] * x.scale), Math.max(3, width / 110)),
      y: scaleOf(shown.map((network) => network[y.key] * y.scale), Math.max(3, height / 70)),
    };
    const left = (v) => MARGIN.left + scale.x.share(v) * (inner.right - MARGIN.left);
    const top = (v) => inner.bottom - scale.y.share(v) * (inner.bottom - MARGIN.top);

    frame.replaceChildren();
    for (const { at, text } of scale.x.ticks) {
      frame.append(make("line", { class: "grid", x1: left(at), x2: left(at), y1: MARGIN.top, y2: inner.bottom }));
      frame.append(make("text", { class: "tick", x: left(at), y: inner.bottom + 18, "text-anchor": "middle" }, text));
    }
    for (const { at, text } of scale.y.ticks) {
      frame.append(make("line", { class: "grid", x1: MARGIN.left, x2: inner.right, y1: top(at), y2: top(at) }));
      frame.append(make("text", { class: "tick", x: MARGIN.left - 8, y: top(at) + 4, "text-anchor": "end" }, text));
    }
    const middle = (MARGIN.left + inner.right) / 2;
    const unit = (a) => `${a.label}${a.unit && ` (${a.unit}${scale[a === x ? "x" : "y"].note})`}`;
    frame.append(make("text", { class: "axis", x: middle, y: height - 6, "text-anchor": "middle" }, unit(x)));
    frame.append(make("text", { class: "axis", x: 14, y: 20 }, unit(y)));

    const place = (network) => ({ x: left(network[x.key] * x.scale), y: top(network[y.key] * y.scale) });
    shown.sort((a, b) => a[x.key] - b[x.key] || a.star - b.star); // draws the star on top of a network at the same place
    placed = new Map(shown.map((network) => [network, place(network)]));
    const best = frontier(shown, x, y);
    const steps = best.map((network, i) => {
      const at = placed.get(network);
      return i ? `H${at.x}V${at.y}` : `M${at.x} ${at.y}`;
    });
    front.setAttribute("d", best.length ? `${steps.join("")}H${inner.right}` : "");
    for (const [network, mark] of points) {
      const at = placed.get(network);
      mark.style.display = at ? "" : "none";
      if (!at) continue;
      mark.style.transform = `translate(${at.x}px, ${at.y}px)`;
      mark.classList.toggle("best", best.includes(network));
      mark.setAttribute("aria-label", [network.id, ...describe(network)].join(", "));
    }
    const order = shown.map((network) => points.get(network));
    const before = [...marks.children].slice(-order.length);
    if (order.some((mark, i) => mark !== before[i])) marks.append(...order); // so that Tab moves from the cheapest to the most expensive
    for (const row of document.querySelectorAll("#networks tbody tr")) {
      const on = best.some((network) => network.id === row.dataset.network);
      row.classList.toggle("best", on);
      row.querySelector(".on-front").textContent = on ? "●" : "";
      row.querySelector(".on-front").dataset.value = on ? 0 : 1;
    }
    const missing = networks.length - shown.length;
    document.getElementById("missing").textContent = missing
      ? `${missing} of ${networks.length} networks have no value for one of these axes and are not plotted.`
      : "";
    point(null);
  }

  function point(network) {
    for (const [other, mark] of points) mark.classList.toggle("pointed", other === network);
    tip.hidden = !network;
    if (!network) return;
    tip.replaceChildren(html("strong", "", network.id), ...describe(network).map((line) => html("span", "", line)));
    const at = placed.get(network);
    const left = Math.min(Math.max(4, at.x - tip.offsetWidth / 2), plot.clientWidth - tip.offsetWidth - 4);
    const above = at.y - tip.offsetHeight - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 0 ? above : at.y + 16}px`;
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const far = ([, at]) => Math.hypot(at.x - (event.clientX - box.left), at.y - (event.clientY - box.top));
    const [best] = [...placed].sort((a, b) => far(a) - far(b));
    return best && far(best) <= NEAR ? best[0] : null;
  }
  svg.addEventListener("pointermove", (event) => point(nearest(event)));
  svg.addEventListener("pointerleave", () => point(null));
  svg.addEventListener("click", (event) => {
    const mark = event.target.closest(".mark"); // a screen reader clicks on a mark without coordinates
    const network = nearest(event) ?? networks.find((n) => n.id === mark?.dataset.network);
    if (network) select(network);
  });

  // ---- the drawing of one network ----------------------------------------------------------------------------------

  function select(network) {
    for (const [other, mark] of points) mark.setAttribute("aria-pressed", other === network);
    for (const row of document.querySelectorAll("#networks tbody tr")) {
      row.classList.toggle("selected", row.dataset.network === network.id);
    }
    const caption = html("figcaption", "");
    caption.append(html("strong", "", network.id), ` ${describe(network).join(", ")}`);
    drawing.replaceChildren(caption, network.kept ? picture(network) : html("p", "note", "The arch.json of this network is missing."));
    drawing.classList.add("filled");
    drawing.scrollIntoView({ block: "nearest" });
  }

  function picture(network) {
    const [wide, high, pad] = [64, 52, 46];
    const size = { width: graph.columns.length * wide + pad, height: graph.rows.length * high + 30 };
    const label = `Drawing of ${network.id}: ${edgesOf(network)}`;
    const image = make("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": label });
    image.style.maxWidth = `${1.5 * size.width}px`;
    image.style.minWidth = `${0.7 * size.width}px`;
    const at = graph.nodes.map((node) => ({ x: pad + (node.x + 0.5) * wide, y: (node.y + 0.5) * high }));
    const alive = new Set(graph.nodes.flatMap((node, i) => (node.end ? [i] : [])));
    const [gone, kept] = [make("g", { class: "gone" }), make("g", { class: "kept" })];
    graph.edges.forEach(([from, to], i) => {
      const keep = network.kept[i] === "1";
      if (keep) alive.add(from).add(to);
      const [a, b] = [at[from], at[to]];
      const bend = graph.nodes[to].x - graph.nodes[from].x > 1 && a.y === b.y ? high / 2 : 0; // bend the edge around the nodes in between
      const d = `M${a.x} ${a.y}Q${(a.x + b.x) / 2} ${(a.y + b.y) / 2 - bend} ${b.x} ${b.y}`;
      (keep ? kept : gone).append(make("path", { d }));
    });
    const dots = make("g");
    graph.nodes.forEach((node, i) => {
      const dot = make("circle", { cx: at[i].x, cy: at[i].y, r: node.block ? 9 : 6 });
      dot.setAttribute("class", `node row-${node.y % 6}${alive.has(i) ? "" : " dead"}`);
      dot.append(make("title", {}, node.title));
      dots.append(dot);
    });
    const labels = make("g", { class: "labels" });
    graph.rows.forEach((text, y) => labels.append(make("text", { x: 4, y: (y + 0.5) * high + 4 }, text)));
    graph.columns.forEach((text, x) => {
      const place = { x: pad + (x + 0.5) * wide, y: size.height - 8, "text-anchor": "middle" };
      labels.append(make("text", place, text));
    });
    image.append(gone, kept, dots, labels);
    const box = html("div", "scroll drawn");
    box.append(image);
    return box;
  }

  for (const row of document.querySelectorAll("#networks tbody tr")) {
    const network = networks.find((n) => n.id === row.dataset.network);
    row.querySelector("button")?.addEventListener("click", () => select(network));
  }
  const change = (moving) => {
    plot.classList.toggle("moving", moving); // animate points when an axis changes, but not when the window is resized
    draw();
  };
  for (const select of Object.values(chosen)) select.addEventListener("change", () => change(true));
  new ResizeObserver(() => change(false)).observe(plot);
})();
