// Native HTML, so that a keyboard moves it and a screen reader reads it, in any notebook.

export default {
  render({ model, el }) {
    el.setAttribute("data-lm-suppress-shortcuts", "true"); // keys are for the control, not for the notebook
    el.classList.add("tlbook-control");
    const controls = { slider, choice, status };
    controls[model.get("kind")](model, el);
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

/** A text that is read aloud when it changes. */
function status(model, el) {
  const text = document.createElement("p");
  text.setAttribute("role", "status");
  const show = () => (text.textContent = model.get("value"));
  model.on("change:value", show);
  show();
  el.append(text);
}
