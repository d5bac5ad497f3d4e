// The pictures of one explanation: photo, overlay and signed map, redrawn as the reader wants them.

/** How maps are shown; the toolbar changes it. */
const look = { range: "own", wheel: "blue-red", threshold: 0 };

/** Where the colours end for maps of a method on the scale of all images. */
const sharedClips = new Map();

function gatherClips() {
  const found = new Map();
  for (const shown of document.querySelectorAll(".shown")) {
    const image = shown.querySelector('[data-part="map"] img');
    const { clip, own } = image.dataset;
    if (clip !== own) sharedClips.set(shown.dataset.method, Number(clip));
    found.set(shown.dataset.method, [...(found.get(shown.dataset.method) ?? []), Number(own)]);
  }
  if (sharedClips.size) look.range = "shared";
  for (const [method, clips] of found) {
    if (!sharedClips.has(method)) sharedClips.set(method, clips.sort((a, b) => a - b)[Math.floor(clips.length / 2)]);
  }
}

function clipFor(shown, own) {
  return look.range === "shared" ? sharedClips.get(shown.dataset.method) : own;
}

/** The canvas over the picture of a stage; the photo lies under an overlay's. */
function canvasOf(stage, photo) {
  let canvas = stage.querySelector("canvas");
  if (!canvas) {
    if (stage.dataset.part === "overlay") {
      const under = photo.cloneNode();
      under.className = "under";
      under.alt = "";
      stage.append(under);
    }
    canvas = stage.appendChild(document.createElement("canvas"));
    canvas.setAttribute("aria-hidden", "true");
    stage.classList.add("live");
  }
  return canvas;
}

/** The stages of an explanation by their part. */
function stagesOf(shown) {
  return new Map([...shown.querySelectorAll(".stage")].map((stage) => [stage.dataset.part, stage]));
}

const smoothed = new WeakMap();

/** Draw the relevance of an explanation, or a field in its place. */
async function drawShown(shown, field = null) {
  const stages = stagesOf(shown);
  const stage = stages.get("map");
  const image = stage.querySelector("img");
  const map = await mapOf(image);
  const own = Number(image.dataset.own);
  const end = field ? clipOf(field.values) : clipFor(shown, own);
  paint(canvasOf(stage), field ?? map, { ...look, clip: end });
  shown.querySelector(".unit").textContent = Number(end.toPrecision(3));
  if (stages.has("overlay")) {
    const photo = shown.closest(".item").querySelector(".photo img");
    const canvas = canvasOf(stages.get("overlay"), photo);
    if (field) {
      paint(canvas, field, { ...look, clip: end, over: true });
    } else {
      if (!smoothed.has(map)) {
        const values = smooth(map);
        smoothed.set(map, { width: map.width, height: map.height, values, clip: clipOf(values) });
      }
      const soft = smoothed.get(map);
      paint(canvas, soft, { ...look, clip: (soft.clip * end) / own, over: true });
    }
  }
}

/** Put the crosshair of a stage or a cell at a place in 0..1, or take it away. */
function mark(stage, place) {
  let cross = stage.querySelector(".cross");
  if (!place) {
    cross?.remove();
    return;
  }
  cross ??= stage.appendChild(made("span", "cross"));
  cross.style.left = `${100 * place.x}%`;
  cross.style.top = `${100 * place.y}%`;
}

/**
 * Let a place of a stage be picked, by pointer and by keys.
 * steps: {rows, columns} that the arrow keys walk; picked: called with the place {x, y} in 0..1.
 */
function pickable(stage, name, steps, picked) {
  stage.classList.add("pick");
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-roledescription", "picture to pick a place in");
  stage.setAttribute("aria-label", `${name}. Arrow keys move the crosshair, Enter picks the middle.`);
  const at = { row: Math.floor(steps.rows / 2), column: Math.floor(steps.columns / 2) };
  const pick = () => picked({ x: (at.column + 0.5) / steps.columns, y: (at.row + 0.5) / steps.rows });
  const clamped = (value, count) => Math.max(0, Math.min(count - 1, value));
  stage.addEventListener("click", (event) => {
    const box = stage.getBoundingClientRect();
    at.row = clamped(Math.floor(((event.clientY - box.top) / box.height) * steps.rows), steps.rows);
    at.column = clamped(Math.floor(((event.clientX - box.left) / box.width) * steps.columns), steps.columns);
    pick();
  });
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Enter: [0, 0], " ": [0, 0] };
  stage.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    at.row = clamped(at.row + move[0], steps.rows);
    at.column = clamped(at.column + move[1], steps.columns);
    pick();
  });
}
