// Native HTML, so that a keyboard moves it and a screen reader reads it, in any notebook.

export default {
  render({ model, el }) {
    el.classList.add("tlbook-control");
    const controls = { slider, choice, several, status, points };
    controls[model.get("kind")](model, el);
    for (const moved of el.querySelectorAll("input, select, svg")) {
      moved.setAttribute("data-lm-suppress-shortcuts", "true"); // keys are for the control, not for JupyterLab
    }
  },
};

/** A slider over values of one step, with a field for the number; or over a list of values, with its text beside it. */
function slider(model, el) {
  const values = model.get("values");
  const listed = values.length > 0;
  const range = Object.assign(document.createElement("input"), { type: "range" });
  const beside = Object.assign(document.createElement(listed ? "output" : "input"), listed ? {} : { type: "number" });
  for (const input of listed ? [range] : [range, beside]) {
    input.min = listed ? 0 : model.get("min");
    input.max = listed ? values.length - 1 : model.get("max");
    input.step = listed ? 1 : model.get("step");
    input.setAttribute("aria-label", model.get("label"));
  }
  const label = Object.assign(document.createElement("span"), { textContent: model.get("label") });
  label.setAttribute("aria-hidden", "true");
  el.append(label, range, beside);

  const textOf = (at) => (listed ? model.get("texts")[at] : String(at));
  const show = (at) => {
    range.value = at;
    if (listed) beside.textContent = textOf(at);
    else beside.value = at;
    range.setAttribute("aria-valuetext", textOf(at));
  };
  const send = (at) => {
    const within = Math.min(Number(range.max), Math.max(Number(range.min), Number(at)));
    model.set("value", listed ? values[within] : within);
    model.save_changes();
    show(within);
  };
  const fromModel = () => show(listed ? values.indexOf(model.get("value")) : model.get("value"));
  range.addEventListener("input", () => show(Number(range.value))); // while it is dragged
  range.addEventListener("change", () => send(range.value));
  if (!listed) beside.addEventListener("change", () => send(beside.value));
  model.on("change:value", fromModel);
  fromModel();
}

/** One of a few: all of them to be seen, the arrow keys move between them. */
function choice(model, el) {
  const group = document.createElement("fieldset");
  const name = `choice-${Math.random()}`;
  group.append(Object.assign(document.createElement("legend"), { textContent: model.get("label") }));
  const inputs = model.get("options").map((value) => {
    const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
    input.addEventListener("change", () => {
      model.set("value", value);
      model.save_changes();
    });
    const label = document.createElement("label");
    label.append(input, value);
    group.append(label);
    return input;
  });
  const show = () => inputs.forEach((input) => (input.checked = input.value === model.get("value")));
  model.on("change:value", show);
  show();
  el.append(group);
}

/** Several of a list, chosen with Shift or Ctrl as in any list. */
function several(model, el) {
  const label = Object.assign(document.createElement("label"), { textContent: model.get("label") });
  const list = Object.assign(document.createElement("select"), { multiple: true, size: 8 });
  const values = model.get("values");
  model.get("texts").forEach((text) => list.append(new Option(text)));
  list.addEventListener("change", () => {
    model.set("value", values.filter((_, i) => list.options[i].selected));
    model.save_changes();
  });
  const show = () => values.forEach((value, i) => (list.options[i].selected = model.get("value").includes(value)));
  model.on("change:value", show);
  show();
  label.append(list);
  el.append(label);
}

/** A text that is read aloud when it changes. */
function status(model, el) {
  const text = document.createElement("p");
  text.setAttribute("role", "status");
  const show = () => (text.textContent = model.get("value"));
  model.on("change:value", show);
  show();
  el.append(text);
}

/** Points of a plane, of which one is chosen: by the mouse, or by arrow keys, to the nearest one that way. */
function points(model, el) {
  const places = model.get("points"); // [x, y, class], x and y in 0 … 1
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-2 -2 104 64");
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "slider");
  svg.setAttribute("aria-label", model.get("label"));
  svg.setAttribute("aria-valuemin", "0");
  svg.setAttribute("aria-valuemax", String(places.length - 1));
  const at = places.map(([x, y]) => [100 * x, 60 * (1 - y)]);
  const marks = places.map(([, , k], i) => {
    const square = k % 2 === 1; // classes differ in shape as well as in colour
    const mark = document.createElementNS(svg.namespaceURI, square ? "rect" : "circle");
    const [x, y] = at[i];
    const place = square ? { x: x - 0.6, y: y - 0.6, width: 1.2, height: 1.2 } : { cx: x, cy: y, r: 0.65 };
    Object.entries(place).forEach(([name, value]) => mark.setAttribute(name, value));
    mark.setAttribute("class", `of-class-${k % 4}`);
    svg.append(mark);
    return mark;
  });
  const choose = (i) => {
    model.set("value", i);
    model.save_changes();
    show();
  };
  const show = () => {
    const i = model.get("value");
    marks.forEach((mark, j) => mark.classList.toggle("chosen", i === j));
    svg.append(marks[i]); // on top
    svg.setAttribute("aria-valuenow", String(i));
    svg.setAttribute("aria-valuetext", model.get("texts")[i]);
  };
  const nearest = (distance) => {
    const order = at.map((_, i) => [distance(i), i]).filter(([d]) => d < Infinity);
    return order.length ? order.reduce((a, b) => (b[0] < a[0] ? b : a))[1] : model.get("value");
  };
  svg.addEventListener("click", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    choose(nearest((i) => Math.hypot(at[i][0] - point.x, at[i][1] - point.y)));
  });
  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in ways)) return;
    event.preventDefault();
    const [[dx, dy], [x, y]] = [ways[event.key], at[model.get("value")]];
    const along = (i) => (at[i][0] - x) * dx + (at[i][1] - y) * dy;
    const across = (i) => Math.abs((at[i][0] - x) * dy + (at[i][1] - y) * dx);
    choose(nearest((i) => (along(i) > 0 && across(i) <= along(i) ? along(i) + across(i) : Infinity)));
  });
  model.on("change:value", show);
  show();
  el.append(svg);
}
