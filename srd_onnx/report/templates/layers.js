// Looking inside: what a PFV of a layer is made of (its ERF), and what a place of the picture feeds.

const FEEDS = "feeds";

/** The layers of an explanation as {element, name, rows, columns, positions}; the last two of these in rows, columns. */
function layersOf(shown) {
  return [...shown.querySelectorAll(".layer")].map((element) => {
    const { name, rows, columns, positions } = element.dataset;
    const [h, w] = [Number(rows), Number(columns)];
    // Of a sequence there are columns alone.
    const places = JSON.parse(positions).map((one) => (one.length > 1 ? one.slice(-2) : [0, one[0] ?? 0]));
    return { element, name, rows: h, columns: w, positions: places, cell: element.querySelector(".cell") };
  });
}

/** The index of the given position that is nearest to a place in 0..1. */
function nearest(layer, { x, y }) {
  const away = layer.positions.map(([row, column]) =>
    Math.hypot((row + 0.5) / layer.rows - y, (column + 0.5) / layer.columns - x),
  );
  return away.indexOf(Math.min(...away));
}

/** Let the reader pick places in an explanation that has layers; once for each. */
function openInside(shown) {
  const layers = layersOf(shown).filter((layer) => layer.positions.length);
  if (!layers.length || shown.dataset.inside) return;
  shown.dataset.inside = "yes";
  const inside = shown.querySelector(".inside");
  const select = document.createElement("select");
  select.className = "click";
  select.append(new Option("what the place feeds, in every layer", FEEDS));
  layers.forEach((layer, i) => select.append(new Option(`the ERF of the PFV there, in ${layer.name}`, String(i))));
  const label = made("label", "", "A click on a picture above shows ");
  label.append(select);
  const controls = made("div", "controls how");
  controls.append(label);
  inside.querySelector("h5").after(
    made("p", "how", "Click a position in a layer: the pictures show what its PFV is made of, its ERF. Click a place in a picture: the layers show which PFVs it feeds."),
    controls,
  );
  const field = { rows: Number(layers[0].element.dataset.height), columns: Number(layers[0].element.dataset.width) };
  const go = (place) => {
    if (!shown.classList.contains("chosen")) return;
    if (select.value === FEEDS) showFeeds(shown, layers, place);
    else showField(shown, layers, layers[Number(select.value)], place);
  };
  picturesOf(shown).forEach((stage) => pickable(stage, stage.querySelector("img").alt, field, go));
  layers.forEach((layer) =>
    pickable(layer.cell, `Layer ${layer.name}, ${layer.rows} by ${layer.columns} positions`, layer, (place) =>
      showField(shown, layers, layer, place),
    ),
  );
}

/** The stages in which a place of the input can be picked. */
function picturesOf(shown) {
  const photo = shown.closest(".item").querySelector(".photo .stage");
  return [...stagesOf(shown).values(), ...(photo ? [photo] : [])];
}

/** Say something about a pick, with a way back. */
function tell(shown, parts) {
  const told = shown.querySelector(".told");
  const back = made("button", "", "Back to the relevance");
  back.type = "button";
  back.addEventListener("click", () => clearPick(shown));
  told.replaceChildren(...parts, back);
  told.hidden = false;
}

/** Whether anything was picked; then all is as before. */
function clearPick(shown) {
  const told = shown.querySelector(".told");
  if (!told || told.hidden) return false;
  if (told.contains(document.activeElement)) shown.querySelector(".stage").focus();
  told.hidden = true;
  picturesOf(shown).forEach((stage) => mark(stage, null));
  for (const { cell } of layersOf(shown)) {
    mark(cell, null);
    cell.classList.remove("live");
    cell.querySelector("canvas")?.remove();
  }
  captions(shown, false);
  drawShown(shown);
  return true;
}

/** The captions of the pictures say what they show. */
function captions(shown, isField) {
  for (const rest of shown.querySelectorAll(".where, .rest")) rest.hidden = isField;
  for (const [part, stage] of stagesOf(shown)) {
    const name = stage.nextElementSibling.querySelector("b");
    name.textContent = isField ? "ERF" + (part === "overlay" ? " on the photo" : "") : part === "overlay" ? "Overlay" : "Signed map";
  }
}

/** The ERF of the PFV of a layer that is nearest to a place. */
async function showField(shown, layers, layer, place) {
  const p = nearest(layer, place);
  const [row, column] = layer.positions[p];
  const fields = await fieldsOf(layer.element);
  const there = { x: (column + 0.5) / layer.columns, y: (row + 0.5) / layer.rows };
  clearPick(shown);
  layers.forEach((one) => mark(one.cell, one === layer ? there : null));
  picturesOf(shown).forEach((stage) => mark(stage, there));
  captions(shown, true);
  await drawShown(shown, fields[p]);
  const relevance = await mapOf(layer.cell.querySelector("img"));
  const same = relevance.width === layer.columns && relevance.height === layer.rows;
  const value = same ? ` It has relevance ${signed(relevance.values[row * layer.columns + column])}.` : "";
  tell(shown, [
    made("b", "", `PFV at row ${row + 1}, column ${column + 1} of ${layer.name}.`),
    `${value} The pictures show its ERF: ${NAMES[look.wheel].for} is what it is made of, ${NAMES[look.wheel].against} what counts against it.`,
  ]);
}

/** What a place of the picture feeds: in every layer, how much of each PFV comes from there. */
async function showFeeds(shown, layers, place) {
  clearPick(shown);
  picturesOf(shown).forEach((stage) => mark(stage, place));
  const strongest = [];
  for (const layer of layers) {
    const fields = await fieldsOf(layer.element);
    const { width, height } = fields[0];
    const at = Math.min(height - 1, Math.floor(place.y * height)) * width + Math.min(width - 1, Math.floor(place.x * width));
    // A field adds up to 1 over its own picture, but for what is booked: so much of the PFV comes from this place.
    const parts = fields.map(({ values }) => values[at] / (values.reduce((sum, one) => sum + one, 0) || 1));
    paintFeeds(layer, parts);
    const best = parts.reduce((most, part, p) => (Math.abs(part) > Math.abs(parts[most]) ? p : most), 0);
    strongest.push({ layer, part: parts[best], position: layer.positions[best] });
  }
  const list = made("ul");
  for (const { layer, part, position } of strongest) {
    const most = `${percent(part)} of the PFV at row ${position[0] + 1}, column ${position[1] + 1}`;
    list.append(made("li", "", `${layer.name}: ${part ? most : "nothing of the PFVs whose fields are in this page"}`));
  }
  tell(shown, [made("b", "", "What this place feeds."), " Each layer shows how much of its PFVs comes from here; most of it:", list]);
}

function percent(part) {
  const size = Math.abs(100 * part);
  return `${part < 0 ? "−" : ""}${size >= 10 ? size.toFixed(0) : size.toPrecision(2)} %`;
}

/** Each position of a layer in the colour of the nearest one whose field is known. */
function paintFeeds(layer, parts) {
  const values = new Float32Array(layer.rows * layer.columns);
  for (let row = 0; row < layer.rows; row++) {
    for (let column = 0; column < layer.columns; column++) {
      const place = { x: (column + 0.5) / layer.columns, y: (row + 0.5) / layer.rows };
      values[row * layer.columns + column] = parts[nearest(layer, place)];
    }
  }
  let canvas = layer.cell.querySelector("canvas");
  if (!canvas) {
    canvas = layer.cell.appendChild(document.createElement("canvas"));
    canvas.setAttribute("aria-hidden", "true");
    layer.cell.classList.add("live");
  }
  const clip = Math.max(...parts.map(Math.abs)) || 1;
  paint(canvas, { width: layer.columns, height: layer.rows, values }, { ...look, threshold: 0, clip });
}
