"use strict";
// The page itself: what is shown, and what happens when something is pressed.

const LEAST = 4; // pictures of a class: one is held out, and C is chosen on the others

const state = { classes: [], together: null, network: null, probe: null, result: null, waiting: Promise.resolve() };

const $ = (id) => document.getElementById(id);

/** A new element with properties and children. */
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const later = () => new Promise((give) => setTimeout(give)); // lets the browser draw
const number = (x) => (Number.isFinite(x) ? x.toFixed(3) : "–");
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const allPictures = () => state.classes.flatMap((one) => one.pictures);

// Pictures

function addClass(name) {
  const known = state.classes.find((one) => one.name === name);
  if (known) return known;
  const one = { name, pictures: [], card: null };
  state.classes.push(one);
  one.card = cardOf(one);
  $("classes").append(one.card);
  return one;
}

/** What shows a class: its name, its pictures, and ways to add some. */
function cardOf(one) {
  const name = el("input", { value: one.name, className: "name", type: "text" });
  name.setAttribute("aria-label", "Name of the class");
  name.onchange = () => (one.name = name.value || "no name");
  const input = el("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  input.setAttribute("aria-label", `Pictures of the class ${one.name}`);
  input.onchange = () => addFiles(one, chosenFiles(input)).then(() => (input.value = ""));
  const add = el("button", { type: "button", textContent: "Add pictures …", onclick: () => input.click() });
  const camera = cameraButton(() => one.name, (file) => addFiles(one, [{ path: [file.name], file }]));
  const remove = el("button", { type: "button", textContent: "Remove", onclick: () => removeClass(one) });
  const buttons = el("p", { className: "buttons" }, add, camera, remove, input);
  const card = el("article", { className: "class" }, name, el("p", { className: "count" }), el("div", { className: "strip" }));
  card.append(buttons);
  onDrop(card, async (files) => addFiles(one, files));
  return card;
}

function removeClass(one) {
  state.classes = state.classes.filter((other) => other !== one);
  one.pictures.forEach(({ url }) => URL.revokeObjectURL(url));
  one.card.remove();
  state.alike = null;
  showState();
}

/** Take files as pictures of a class; each gets its features as soon as the network is there. */
async function addFiles(one, files) {
  const added = files.map(({ path, file }) => ({ path, file, url: URL.createObjectURL(file), features: null }));
  one.pictures.push(...added);
  showState();
  state.waiting = state.waiting.then(async () => {
    for (const picture of added) if (state.classes.includes(one)) await compute(one, picture);
  });
  await state.waiting;
}

/** The features and the thumbprint of a picture, or a line that says why it is passed over. */
async function compute(one, picture) {
  try {
    const pixels = await decode(picture.file);
    picture.print = thumbprint(pixels);
    picture.features = await (await state.network)(pixels);
  } catch (error) {
    one.pictures = one.pictures.filter((other) => other !== picture);
    $("passed").append(el("p", { className: "warning" }, `Passed over: ${picture.path.join("/")} ${error.message}`));
  }
  state.alike = null;
  showState();
  await later();
}

/** Call ``use`` with the files that are dropped on an element. */
function onDrop(element, use) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("over");
    await use(await droppedFiles(event.dataTransfer));
  });
}

/** Give each class that is still empty, or of that name, its folder. */
async function addFolders(files) {
  const found = byClass(files);
  if (!found.length) $("passed").append(el("p", { className: "warning" }, "No folder of pictures was given."));
  if (found.length) state.classes.filter((one) => !one.pictures.length).forEach(removeClass);
  await Promise.all(found.map(([name, inside]) => addFiles(addClass(name), inside)));
}

// What is shown of it

function showState() {
  for (const one of state.classes) {
    const [, count, strip] = one.card.children;
    count.textContent = plural(one.pictures.length, "picture");
    const shown = one.pictures.slice(0, 24);
    if (strip.children.length !== shown.length || strip.lastChild?.src !== shown.at(-1)?.url) {
      strip.replaceChildren(...shown.map((picture) => el("img", { src: picture.url, alt: "", title: picture.path.at(-1) })));
    }
  }
  const pictures = allPictures();
  const done = pictures.filter((picture) => picture.features).length;
  showTogether(pictures, done === pictures.length);
  showProgress(done, pictures.length);
  $("training").hidden = !pictures.length;
}

function showTogether(pictures, complete) {
  if (complete && !state.alike && pictures.length) state.alike = lookAlikes(pictures.map((picture) => picture.print));
  const alike = complete && state.alike?.length ? groupsOfLookAlikes(pictures.length, state.alike) : null;
  state.groupings = groupings(pictures, alike);
  const select = $("together");
  const wanted = select.dataset.chosen || ("folder" in state.groupings ? "folder" : "none");
  const options = Object.entries(state.groupings).map(([value, kind]) =>
    el("option", { value, textContent: kind.name + (kind.group ? ` (${kind.n})` : "") }),
  );
  select.replaceChildren(...options);
  select.value = wanted in state.groupings ? wanted : "none";
  $("why-together").textContent = state.groupings[select.value].why;
}

function showProgress(done, all) {
  const few = state.classes.filter((one) => one.pictures.length < LEAST);
  const ready = state.classes.length >= 2 && !few.length;
  $("train").disabled = !ready || state.training;
  if (state.training) return;
  $("bar").hidden = done === all;
  $("bar").value = all ? done / all : 0;
  if (!ready) $("progress").textContent = `Needed: two classes, and ${LEAST} pictures of each.`;
  else if (done < all) $("progress").textContent = `The network has seen ${done} of ${all} pictures.`;
  else $("progress").textContent = `${plural(all, "picture")} ready.`;
}

// Training

async function train() {
  const start = performance.now();
  state.training = true;
  $("train").disabled = true;
  try {
    while (allPictures().some((picture) => !picture.features)) await state.waiting;
    const pictures = allPictures();
    const X = pictures.map((picture) => picture.features);
    const y = pictures.map((picture) => state.classes.findIndex((one) => one.pictures.includes(picture)));
    const K = state.classes.length;
    const kind = state.groupings[$("together").value];
    const groups = kind.group ? pictures.map(kind.group) : null;
    checkGroups(y, K, groups);
    $("bar").hidden = false;
    const { p, parts } = await heldOut(X, y, K, groups, async (fold, folds) => {
      $("bar").value = fold / folds;
      $("progress").textContent = `Fitted without part ${fold} of ${folds}.`;
      await later();
    });
    state.probe = linearProbe(X, y, K, groups);
    const names = state.classes.map((one) => one.name);
    state.result = { pictures, names, y, K, groups, p, parts, ...evaluate(p, y, K, groups) };
    state.result.seconds = (performance.now() - start) / 1000;
    showResult(state.result);
    $("progress").textContent = `Done: AUC ${number(state.result.auc)}.`;
  } catch (error) {
    $("progress").textContent = `Not trained: ${error.message}`;
  } finally {
    state.training = false;
    $("bar").hidden = true;
    $("train").disabled = false;
  }
}

function checkGroups(y, K, groups) {
  for (const k of range(K)) {
    const n = groups ? new Set(groups.filter((_, i) => y[i] === k)).size : LEAST;
    if (n >= 2) continue;
    throw new Error(
      `all pictures of ${state.classes[k].name} are of one group, so that nothing can be said of new groups. ` +
        "Add others, or hold out single pictures.",
    );
  }
}

function showResult(result) {
  const ranked = `Of two pictures of different classes, ${Math.round(100 * result.auc)} % are ranked rightly`;
  const scores = [
    ["AUC", result.auc, result.interval.auc, `${ranked}; guessing ranks 50 %.`],
    ["Accuracy", result.accuracy, result.interval.accuracy, `The most frequent class alone: ${number(result.majority)}.`],
  ];
  $("scores").replaceChildren(
    ...scores.map(([name, value, [low, high], words]) =>
      el(
        "div",
        { className: "score" },
        el("p", { className: "metric", textContent: name }),
        el("p", { className: "value", textContent: number(value) }),
        el("p", { className: "interval", textContent: `95 % interval ${number(low)} to ${number(high)}` }),
        el("p", { className: "note", textContent: words }),
      ),
    ),
  );
  const unit = result.groups ? "groups" : "pictures";
  const n = Math.round(result.y.length / result.parts);
  const held = result.groups ? "whole groups were held out" : `${n} pictures were held out`;
  $("how").textContent =
    `Each of the ${result.y.length} pictures was judged by a probe that had not seen it: in each of ${result.parts} ` +
    `rounds, ${held}, some of every class, and the probe was fitted on the others, its C chosen among them. The ` +
    `interval covers the luck of which ${unit} were tested, not what a new camera or a new day changes. It took ` +
    `${result.seconds.toFixed(1)} s.`;
  showWarnings(result);
  showMistakes(result);
  $("result").hidden = $("use").hidden = false;
  $("result").focus({ preventScroll: true });
  $("result").scrollIntoView?.({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

/** Pictures that look nearly the same: on two sides of a test they make it too easy. */
function showWarnings(result) {
  const pairs = (state.alike || []).filter(([i, j]) => !result.groups || result.groups[i] !== result.groups[j]);
  $("warnings").replaceChildren();
  if (!pairs.length) return;
  const shown = pairs.slice(0, 3).map(([i, j, correlation]) => {
    const [a, b] = [result.pictures[i], result.pictures[j]];
    const images = [a, b].map(({ url, path }) => el("img", { src: url, alt: path.join("/") }));
    const where = result.y[i] === result.y[j] ? "" : ", of two classes";
    const words = `${a.path.at(-1)} and ${b.path.at(-1)}${where}: correlation ${correlation.toFixed(3)}`;
    return el("figure", { className: "pair" }, ...images, el("figcaption", { textContent: words }));
  });
  const words = `Nearly the same: ${plural(pairs.length, "pair")} of pictures. If they show one thing, the scores flatter.`;
  const again = el("button", { type: "button", textContent: "Hold such pictures out together, and train again" });
  again.onclick = () => {
    $("together").value = $("together").dataset.chosen = "alike";
    train();
  };
  $("warnings").append(el("div", { className: "warning" }, el("p", { textContent: words }), ...shown, el("p", {}, again)));
}

/** The pictures whose true class got the lowest probability. */
function showMistakes(result) {
  const truth = result.p.map((row, i) => row[result.y[i]]);
  const order = range(truth.length).sort((a, b) => truth[a] - truth[b]);
  const wrong = order.filter((i) => result.p[i].indexOf(Math.max(...result.p[i])) !== result.y[i]);
  $("mistakes-title").textContent = wrong.length
    ? `Worst mistakes (${wrong.length} of ${truth.length} pictures are wrong)`
    : "No picture was taken for another class; the least sure";
  $("mistakes").replaceChildren(
    ...(wrong.length ? wrong : order).slice(0, 8).map((i) => {
      const k = result.p[i].indexOf(Math.max(...result.p[i]));
      const said = k === result.y[i] ? "" : `taken for ${result.names[k]} (${number(result.p[i][k])}), `;
      const words = `${said}is ${result.names[result.y[i]]} (${number(truth[i])})`;
      const image = el("img", { src: result.pictures[i].url, alt: result.pictures[i].path.join("/") });
      return el("figure", {}, image, el("figcaption", { textContent: words }));
    }),
  );
}

/** What was measured, for other programs. */
function numbers() {
  const { pictures, names, y, groups, p, parts, auc, accuracy, interval, majority, seconds } = state.result;
  return {
    classes: names,
    pictures: pictures.map((picture, i) => ({
      path: picture.path.join("/"),
      class: names[y[i]],
      group: groups && groups[i],
      probabilities: p[i],
    })),
    scores: { auc, accuracy, interval, majority, parts, seconds },
    probe: { C: state.probe.C, W: state.probe.W.map((w) => [...w]), b: state.probe.b, path: state.probe.path },
    network: MODEL,
  };
}

function save() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(numbers(), null, 1)], { type: "application/json" }));
  el("a", { href: url, download: "classifier.json" }).click();
  URL.revokeObjectURL(url);
}

// Asking

/** The probabilities of the classes for an image: the probe's, or those of a network that has its own head. */
async function probabilitiesOf(pixels) {
  const output = await (await state.network)(pixels);
  return MODEL.classes ? [...output] : state.probe.predict(output);
}

async function ask(files) {
  for (const { file, path } of files) {
    try {
      const p = await probabilitiesOf(await decode(file));
      const names = MODEL.classes || state.result.names;
      const best = p.indexOf(Math.max(...p));
      $("answer").textContent = `${path.at(-1)}: ${names[best]}, probability ${number(p[best])}`;
      $("answers").prepend(answerOf(file, path.at(-1), names, p));
    } catch (error) {
      $("answer").textContent = `${path.at(-1)} ${error.message}`;
    }
    await later();
  }
}

/** A picture, and a bar for each class (the first ten). */
function answerOf(file, name, names, p) {
  const order = range(p.length).sort((a, b) => p[b] - p[a]).slice(0, 10);
  const rows = order.map((k) => {
    const bar = el("span", { className: "bar" });
    bar.style.setProperty("--share", p[k]);
    const row = el("tr", {}, el("th", { scope: "row", textContent: names[k] }));
    row.append(el("td", {}, bar), el("td", { className: "number", textContent: number(p[k]) }));
    return row;
  });
  const image = el("img", { src: URL.createObjectURL(file), alt: name });
  return el("div", { className: "answer" }, image, el("table", {}, el("tbody", {}, ...rows)));
}

// The camera

function cameraButton(name, use, button = el("button", { type: "button" })) {
  const here = Boolean(navigator.mediaDevices?.getUserMedia);
  button.textContent = here ? "Camera" : "No camera here (needs https)";
  button.disabled = !here;
  button.onclick = () => openCamera(name(), use).catch((error) => (button.textContent = `No camera (${error.name})`));
  return button;
}

/** Show what the camera sees; each press gives ``use`` a picture. */
async function openCamera(name, use) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const video = $("video");
  let taken = 0;
  video.srcObject = stream;
  $("camera-title").textContent = `Camera: ${name}`;
  $("taken").textContent = "";
  $("take").onclick = async () => {
    if (!video.videoWidth) return;
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((give) => canvas.toBlob(give, "image/png"));
    $("taken").textContent = `${plural(++taken, "picture")} taken. Move between them: nearly equal pictures teach little.`;
    use(new File([blob], `camera-${Date.now()}.png`, { type: "image/png" }));
  };
  $("done").onclick = () => $("camera").close();
  $("camera").onclose = () => stream.getTracks().forEach((track) => track.stop());
  $("camera").showModal();
}

// The start

function start() {
  const trained = Boolean(MODEL.classes);
  $("network").textContent = "The network is being started …";
  state.network = startNetwork();
  state.network.then(
    () => ($("network").textContent = "The network is ready."),
    (error) => ($("network").textContent = `The network cannot be started: ${error.message}`),
  );
  $("about").textContent = MODEL.about;
  $("pictures").hidden = trained;
  $("training").hidden = true;
  $("use").hidden = !trained;
  if (trained) showTrained();
  else ["first class", "second class"].forEach(addClass);
  showState();

  onDrop($("drop"), addFolders);
  onDrop($("ask"), ask);
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault()); // beside the places
  $("choose").onclick = () => $("folder").click();
  $("folder").onchange = () => addFolders(chosenFiles($("folder"))).then(() => ($("folder").value = ""));
  $("another").onclick = () => addClass(`class ${state.classes.length + 1}`).card.querySelector("input").focus();
  $("together").onchange = () => {
    $("together").dataset.chosen = $("together").value;
    showState();
  };
  $("train").onclick = train;
  $("save").onclick = save;
  $("ask-file").onclick = () => $("asked").click();
  $("asked").onchange = () => ask(chosenFiles($("asked"))).then(() => ($("asked").value = ""));
  cameraButton(() => "ask it", (file) => ask([{ path: [file.name], file }]), $("ask-camera"));
}

/** A page that carries a classifier which was trained before. */
function showTrained() {
  const names = MODEL.classes;
  const listed = names.length <= 6 ? names.join(", ") : `${names.slice(0, 5).join(", ")} and ${names.length - 5} more`;
  document.title = $("title").textContent = `Which is it: ${listed}?`;
  $("intro").textContent = "This page carries a trained classifier. What you drop here does not leave this computer.";
  $("use-title").textContent = "Ask it";
}

start();
