// What the reader does.

function dark() {
  const theme = page.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  byId("theme").textContent = dark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", dark() ? "Show the page in light colours" : "Show the page in dark colours");
}

/** The scale at the top in the colours that the maps have. */
function drawLegend() {
  const image = document.querySelector(".legend img");
  let canvas = document.querySelector(".legend canvas");
  if (!canvas) {
    canvas = made("canvas");
    canvas.setAttribute("role", "img");
    image.after(canvas);
    image.hidden = true;
  }
  const values = Float32Array.from({ length: 256 }, (_, i) => (i - 127.5) / 127.5);
  paint(canvas, { width: 256, height: 1, values }, { ...look, clip: 1 });
  page.dataset.wheel = look.wheel;
  for (const word of document.querySelectorAll(".legend figcaption b")) {
    const name = NAMES[look.wheel][word.className];
    word.textContent = word.previousSibling ? name : name[0].toUpperCase() + name.slice(1);
  }
  const [low, high] = [NAMES[look.wheel].against, NAMES[look.wheel].for];
  canvas.setAttribute("aria-label", `Colour scale: ${low} at −1, ${NAMES[look.wheel].neither} at 0, ${high} at +1.`);
}

function follow(focus) {
  const item = items.find((one) => `#${one.element.id}` === location.hash);
  if (item && item === open) return;
  if (item) show(item, focus);
  else if (!alone && (location.hash === "#images" || location.hash === "")) show(null, focus);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    const cleared = open && chosenOf(open).map(clearPick).some(Boolean);
    if (!cleared && open && !alone) location.hash = "images";
    return;
  }
  if (event.target.closest("input, select, textarea, .wide")) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
}

function start() {
  // A browser from before 2023 cannot unpack the maps: it shows the page as without a script.
  if (!("DecompressionStream" in window)) return;
  page.classList.add("js");
  byId("theme").hidden = false;
  nameTheme();
  byId("theme").addEventListener("click", () => {
    page.dataset.theme = dark() ? "light" : "dark";
    nameTheme();
  });
  if (!items.length) return;
  gatherClips();
  fillFinding();
  byId("range").value = look.range;
  for (const id of ["search", "flag", "order"]) byId(id).addEventListener("input", find);
  for (const id of ["target", "method", "every"]) byId(id).addEventListener("input", choose);
  for (const id of ["range", "wheel", "threshold"]) {
    byId(id).addEventListener("input", () => {
      Object.assign(look, {
        range: byId("range").value,
        wheel: byId("wheel").value,
        threshold: Number(byId("threshold").value) / 100,
      });
      byId("below").textContent = `${byId("threshold").value} %`;
      drawLegend();
      refresh();
    });
  }
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  addEventListener("hashchange", () => follow(true));
  addEventListener("keydown", onKey);
  drawLegend();
  find();
  if (alone) show(items[0]);
  else show(null);
  follow(false);
}

start();
