const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (letter) => letter.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const page = await new Response(unpacked).json();
const boxes = [...document.querySelectorAll('input[name="group"]')];
const MAX_SVG_ROWS = 6000;

// A picture of single points in SVG follows the colours of the page by itself; a canvas is drawn with the colours of now.
function config(isCanvas) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => (isCanvas ? style.getPropertyValue(name).trim() : `var(${name})`);
  const text = JSON.stringify(page.config).replaceAll(page.ink, colour("--ink")).replaceAll(page.faint, colour("--line"));
  return JSON.parse(text);
}

// Hidden groups leave the axes and the legends too.
function keepGroups(node, shown) {
  if (!node || typeof node !== "object") return;
  if (Array.isArray(node)) return node.forEach((item) => keepGroups(item, shown));
  if (node.field === "group" && node.scale?.domain) {
    const kept = node.scale.domain.map((group, index) => [group, node.scale.range?.[index]]).filter(([group]) => shown.has(group));
    node.scale.domain = kept.map(([group]) => group);
    if (node.scale.range) node.scale.range = kept.map(([, value]) => value);
  }
  if (node.field === "group" && Array.isArray(node.sort)) node.sort = node.sort.filter((group) => shown.has(group));
  Object.values(node).forEach((item) => keepGroups(item, shown));
}

// Legends of names leave the chart and become buttons below the chart, which wrap and hide a name.
function takeLegends(node, legends = new Map()) {
  for (const channel of ["color", "shape", "strokeDash"]) {
    const encoding = node.encoding?.[channel];
    if (encoding?.field && encoding.type === "nominal" && encoding.legend !== null) {
      const legend = legends.get(encoding.field) ?? { values: encoding.scale.domain, channels: new Set() };
      legends.set(encoding.field, legend);
      legend.channels.add(channel);
      encoding.legend = null;
    }
  }
  (node.layer ?? []).forEach((layer) => takeLegends(layer, legends));
  return legends;
}

const SHAPES = {
  circle: "M14 1.5a4.5 4.5 0 1 0 .01 0z",
  square: "M10 2h8v8h-8z",
  "triangle-up": "M14 1l5.2 9h-10.4z",
  cross: "M12.4 1.5h3.2v2.9h2.9v3.2h-2.9v2.9h-3.2v-2.9h-2.9v-3.2h2.9z",
};

// The sign of a name: its dash if it has one, and its shape, in its colour.
function sign({ colour, dash, shape }) {
  const holder = document.createElement("span");
  const line = dash ? `<line x1="0" y1="6" x2="28" y2="6" stroke="${colour}" stroke-width="3" stroke-dasharray="${dash.join(" ")}"/>` : "";
  holder.innerHTML = `<svg class="key" viewBox="${dash ? 0 : 8} 0 ${dash ? 28 : 12} 12" aria-hidden="true">${line}<path d="${SHAPES[shape] ?? SHAPES.square}" fill="${colour}"/></svg>`;
  return holder.firstChild;
}

function select(label, options, parent, changed) {
  const wrapper = document.createElement("label");
  const list = document.createElement("select");
  wrapper.append(`${label} `, list);
  for (const [value, text] of options) list.add(new Option(text, value));
  list.disabled = options.length < 2;
  list.addEventListener("change", changed);
  parent.append(wrapper);
  return list;
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    const element = document.getElementById(`figure-${figure.name}`);
    this.element = element.querySelector(".chart");
    this.meaning = element.querySelector(".meaning");
    this.legend = element.querySelector(".legend");
    this.hidden = new Map();
    const parent = element.querySelector(".choices");
    const changed = () => this.draw();
    this.keys = figure.labels.map((label, place) => {
      const values = [...new Set(figure.charts.map((chart) => chart.key[place]))];
      return select(label, values.map((value) => [value, value]), parent, changed);
    });
    this.choices = figure.choices.map((choice) => [choice, select(choice.label, choice.options.map(([value, text]) => [value, text]), parent, changed)]);
  }

  async draw() {
    const { figure } = this;
    const chosen = figure.charts.find((chart) => chart.key.every((value, place) => value === this.keys[place].value));
    this.meaning.textContent = chosen.meaning;
    const spec = structuredClone(chosen.spec);
    const legends = takeLegends(spec);
    const filters = this.choices.map(([choice, list]) => ({ filter: { field: choice.field, equal: list.value } }));
    if (figure.has_groups && boxes.length) {
      const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      filters.push({ filter: { field: "group", oneOf: [...shown] } });
      const before = spec.height;
      keepGroups(spec, shown);
      if (figure.grows && typeof before === "number") spec.height = Math.max(60, Math.round((before - 20) * shown.size / boxes.length) + 20);
    }
    for (const [field, values] of this.hidden) filters.push({ filter: { not: { field, oneOf: [...values] } } });
    spec.transform = [...filters, ...(spec.transform ?? [])];
    spec.data.values = page.tables[figure.name];
    delete spec.data.name;
    spec.width = "container";
    spec.autosize = { type: "fit-x", contains: "padding" };
    const isCanvas = figure.num_drawn > MAX_SVG_ROWS;
    const options = { renderer: isCanvas ? "canvas" : "svg", actions: false, config: config(isCanvas), ast: false };
    this.isCanvas = isCanvas;
    this.width = this.element.clientWidth;
    const { view } = await window.vegaEmbed(this.element, spec, options);
    this.view?.finalize();
    this.view = view;
    this.legend.replaceChildren(...[...legends].flatMap(([field, legend]) => this.buttons(field, legend)));
  }

  // A button per name of a legend. A group is hidden in all figures, by its box at the top of the page.
  buttons(field, { values, channels }) {
    if (field === "group") {
      const own = boxes.filter((box) => values.includes(box.value));
      return own.map((box) => this.button(box.value, page.groups[box.value], box.checked, () => box.click(), -1));
    }
    const hidden = this.hidden.get(field) ?? new Set();
    this.hidden.set(field, hidden);
    const scaled = (channel, value, otherwise) => (channels.has(channel) ? this.view.scale(channel)(value) : otherwise);
    return values.map((value) => {
      const look = { colour: scaled("color", value, "var(--ink)"), shape: scaled("shape", value) };
      return this.button(value, look, !hidden.has(value), () => {
        hidden.has(value) ? hidden.delete(value) : hidden.add(value);
        this.draw().then(() => [...this.legend.children].find((button) => button.textContent === String(value))?.focus());
      });
    });
  }

  button(text, look, isShown, clicked, tabIndex = 0) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", tabIndex, onclick: clicked });
    button.setAttribute("aria-pressed", isShown);
    button.append(sign(look), String(text));
    return button;
  }
}

const charts = page.figures.map((figure) => new Chart(figure));
// A chart is drawn when the reader comes near, and all charts are drawn before the page is printed.
const waiting = new Map(charts.map((chart) => [chart.element, chart]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && waiting.has(entry.target)) {
      const chart = waiting.get(entry.target);
      waiting.delete(entry.target);
      chart.draw();
    }
  }
}, { rootMargin: "800px" });
charts.forEach((chart) => seen.observe(chart.element));

async function drawAll() {
  const left = [...waiting.values()];
  waiting.clear();
  await Promise.all(left.map((chart) => chart.draw()));
}
const drawn = () => charts.filter((chart) => !waiting.has(chart.element));
window.drawAll = drawAll;
if (page.figures.length) setTimeout(drawAll, 1500);

boxes.forEach((box) => box.after(sign(page.groups[box.value])));
boxes.forEach((box) => box.addEventListener("change", () => drawn().forEach((chart) => chart.draw())));
const setAll = (isChecked) => {
  boxes.forEach((box) => (box.checked = isChecked));
  drawn().forEach((chart) => chart.draw());
};
document.getElementById("all")?.addEventListener("click", () => setAll(true));
document.getElementById("none")?.addEventListener("click", () => setAll(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawn().filter((chart) => chart.isCanvas).forEach((chart) => chart.draw());
});
let timer;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    // Only if the width has changed: a phone hides its address bar while the reader scrolls.
    drawn().filter((chart) => chart.width !== chart.element.clientWidth).forEach((chart) => chart.draw());
  }, 200);
});
