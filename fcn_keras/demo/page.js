// How the page behaves. Names are set as text, never as HTML, and stay in the browser.
"use strict";

const UNPAINTED = 255;
const find = (selector) => document.querySelector(selector);
const canvas = find("canvas");
const opacity = find("#opacity input");

let classes = []; // of the model
let shown = null; // the last answer
let running = null; // what aborts the current request
let redrawing = 0;

function say(status, problem = "") {
  find("[role=status]").textContent = status;
  find("[role=alert]").textContent = problem;
}

// Paints classes over the photograph: the steps of fcn_keras/files/painting.py, pixel by pixel.
function paint({ pixels, width, height }, chosen, opacity) {
  const counts = new Uint32Array(256);
  for (let at = 3; at < pixels.length; at += 4) counts[pixels[at]]++;
  const order = chosen.sort((a, b) => counts[a] - counts[b] || a - b);
  const rankOf = new Uint8Array(256).fill(UNPAINTED);
  order.forEach((id, rank) => (rankOf[id] = rank));
  const ranks = new Uint8Array(width * height);
  for (let i = 0; i < ranks.length; i++) ranks[i] = rankOf[pixels[4 * i + 3]];
  const alpha = Math.round(255 * opacity);
  const lineAlpha = Math.min(255, Math.round(510 * opacity));
  const line = Math.max(1, Math.round(Math.max(width, height) / 1000));

  const result = new ImageData(new Uint8ClampedArray(pixels), width, height);
  function blend(i, color, alpha) {
    for (let at = 4 * i; at < 4 * i + 3; at++, color >>= 8) {
      const sum = result.data[at] * (255 - alpha) + (color & 255) * alpha + 128;
      result.data[at] = ((sum >> 8) + sum) >> 8;
    }
  }
  const colors = order.map((id) => packed(classes[id].color));
  const lines = order.map((id) => packed(Array(3).fill(classes[id].line)));
  const hatched = order.map((id) => classes[id].hatched);
  for (let i = 0, y = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const own = ranks[i];
      const left = x < line ? own : ranks[i - line];
      const right = x + line < width ? ranks[i + line] : own;
      const above = y < line ? own : ranks[i - line * width];
      const below = y + line < height ? ranks[i + line * width] : own;
      const low = Math.min(own, left, right, above, below);
      const high = Math.max(own, left, right, above, below);
      result.data[4 * i + 3] = 255;
      if (own !== UNPAINTED) {
        blend(i, colors[own], alpha);
        const striped = (x + y + line - 1) % (10 * line) <= 2 * (line - 1);
        if (hatched[own] && striped) blend(i, lines[own], lineAlpha);
      }
      if (high > own) blend(i, colors[own], lineAlpha);
      if (low < own) blend(i, lines[low], lineAlpha);
    }
  }
  return result;
}

const packed = ([red, green, blue]) => red | (green << 8) | (blue << 16);

function draw() {
  redrawing = 0;
  const chosen = [...document.querySelectorAll("#classes input:checked")].map((box) => +box.value);
  canvas.getContext("2d").putImageData(paint(shown, chosen, opacity.value / 100), 0, 0);
}

function drawSoon() {
  find("#opacity output").textContent = opacity.value;
  if (shown && !redrawing) redrawing = requestAnimationFrame(draw);
}

function toggle([id, share]) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  Object.assign(box, { type: "checkbox", value: id, checked: classes[id].painted });
  const percent = share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : "< 0.1 %";
  const text = document.createElement("span");
  text.textContent = `${classes[id].name} ${percent}`;
  label.append(box, text);
  label.style.setProperty("--swatch", `rgb(${classes[id].color})`);
  label.style.setProperty("--share", `${100 * share}%`);
  return label;
}

function show(name, facts, pixels, mask) {
  const [width, height] = facts.shown;
  shown = { name: name.replace(/\.[^.]*$/, ""), pixels, width, height, mask };
  let text = `${name}: ${facts.size.join(" × ")} pixels in ${facts.seconds.toFixed(2)} s`;
  if (`${facts.size}` !== `${facts.shown}`) text += `, shown at ${facts.shown.join(" × ")}`;
  say(text);
  find("#classes").replaceChildren(find("#classes legend"), ...facts.shares.map(toggle));
  Object.assign(canvas, { width, height, hidden: false, ariaLabel: `${name} and its classes` });
  find("#classes").hidden = find("#tools").hidden = find("#download").disabled = false;
  draw();
}

async function predict(name, address, body) {
  running?.abort();
  const mine = (running = new AbortController());
  say(`Segmenting ${name} …`);
  find("progress").hidden = false;
  try {
    const answer = await fetch(address, { method: "POST", body, signal: mine.signal });
    if (!answer.ok) return say("", `${name}: ${await answer.text()}`);
    const parts = await answer.formData();
    const facts = JSON.parse(await parts.get("facts").text());
    const pixels = new Uint8ClampedArray(await parts.get("picture").arrayBuffer());
    if (running === mine) show(name, facts, pixels, parts.get("mask"));
  } catch {
    if (running !== mine) return;
    say("", `${name}: no answer. Is fcn-keras demo still running, and can the file be read?`);
  } finally {
    if (running === mine) find("progress").hidden = true;
  }
}

function take(event, files) {
  if (!files?.length) return;
  event.preventDefault();
  predict(files[0].name, "predict", files[0]);
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function start() {
  const model = await (await fetch("model.json")).json();
  classes = model.classes;
  document.title = `${model.title} · fcn_keras`;
  find("#heading b").textContent = model.title;
  find("#heading span").textContent = `distinguishes ${classes.length} classes.`;
  model.samples.forEach((name, i) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    button.title = image.alt = `Sample ${name.replace(/\.[^.]*$/, "")}`;
    image.src = `samples/${i}.jpg`;
    button.append(image);
    button.onclick = () => predict(name, `predict?sample=${i}`);
    find("#samples").append(button);
  });
}

const input = find("#photograph input");
input.onchange = (event) => {
  take(event, [...input.files]);
  input.value = ""; // so that the same file can be chosen again
};
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault(); // otherwise the browser leaves the page for the file
  take(event, event.dataTransfer.files);
};
document.onpaste = (event) => take(event, event.clipboardData.files);
opacity.oninput = find("#classes").onchange = drawSoon;
find("#fullscreen").hidden = !document.fullscreenEnabled;
find("#fullscreen").onclick = () => canvas.requestFullscreen();
find("#save").onclick = () => canvas.toBlob((file) => save(file, `${shown.name}_overlay.png`));
find("#download").onclick = () => save(shown.mask, `${shown.name}_mask.png`);
start().catch(() => say("", "No answer. Is fcn-keras demo still running?"));
