// All images: found, ordered, and one of them opened.

const byId = (id) => document.getElementById(id);
const items = [...document.querySelectorAll(".item")].map((element, place) => ({
  element,
  place,
  name: element.dataset.name,
  keys: JSON.parse(element.dataset.keys),
  flags: JSON.parse(element.dataset.flags),
}));
const alone = items.length === 1;
let visible = items;
let open = null;

const uniqueOf = (values) => [...new Set(values)];

/** Fill the lists by which images are found with what there is. */
function fillFinding() {
  for (const flag of uniqueOf(items.flatMap((item) => item.flags)).sort()) byId("flag").append(new Option(flag, flag));
  byId("order").append(new Option("name", "name"));
  for (const key of uniqueOf(items.flatMap((item) => Object.keys(item.keys)))) {
    byId("order").append(new Option(`${key}, largest first`, `-${key}`), new Option(`${key}, smallest first`, `+${key}`));
  }
}

/** What the reader chose: a target, its place among the targets of its image, and a method. */
const wish = { target: "", rank: 0, method: "" };

/** Fill the lists of targets and methods with those of an image; what was chosen stays, as far as it is there. */
function fillLooking(item) {
  const shown = [...item.element.querySelectorAll(".shown")].map((one) => one.dataset);
  const targets = uniqueOf(shown.map((one) => one.target));
  const methods = uniqueOf(shown.map((one) => one.method));
  const labelOf = (target) => shown.find((one) => one.target === target).label;
  const named = (target) => (labelOf(target) === target ? target : `${labelOf(target)} · ${target}`);
  byId("target").replaceChildren(...targets.map((target) => new Option(named(target), target)));
  byId("method").replaceChildren(...methods.map((method) => new Option(method, method)));
  if (targets.length) {
    byId("target").value = targets.includes(wish.target) ? wish.target : targets[Math.min(wish.rank, targets.length - 1)];
    byId("method").value = methods.includes(wish.method) ? wish.method : methods[0];
  }
  byId("every-label").hidden = methods.length < 2;
  byId("looking").hidden = !shown.length;
}

/** Remember what was chosen. */
function choose() {
  Object.assign(wish, {
    target: byId("target").value,
    rank: byId("target").selectedIndex,
    method: byId("method").value,
  });
  refresh();
}

/** The explanations of an item that are to be seen: of the chosen target, by the chosen method or by all. */
function chosenOf(item) {
  const { value: target } = byId("target");
  const some = [...item.element.querySelectorAll(".shown")].filter((one) => one.dataset.target === target);
  return byId("every").checked ? some : some.filter((one) => one.dataset.method === byId("method").value).slice(0, 1);
}

/** Draw the opened image as the toolbar says. */
function refresh() {
  if (!open) return;
  const chosen = chosenOf(open);
  for (const shown of open.element.querySelectorAll(".shown")) {
    shown.classList.toggle("chosen", chosen.includes(shown));
  }
  for (const shown of chosen) {
    openInside(shown);
    if (!clearPick(shown)) drawShown(shown);
  }
}

/** The images that fit name and flag, in the wanted order. */
function find() {
  const words = byId("search").value.trim().toLowerCase();
  const flag = byId("flag").value;
  const order = byId("order").value;
  visible = items.filter(
    (item) => item.name.toLowerCase().includes(words) && (!flag || item.flags.includes(flag)),
  );
  const [sign, key] = [order[0], order.slice(1)];
  if (order === "name") visible.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  else if (order) {
    const value = (item) => item.keys[key] ?? (sign === "-" ? -Infinity : Infinity);
    visible.sort((a, b) => (sign === "-" ? value(b) - value(a) : value(a) - value(b)) || a.place - b.place);
  }
  byId("count").textContent = `${visible.length} of ${items.length} images`;
  byId("nothing").hidden = visible.length > 0 || Boolean(open);
  const shownKey = order && order !== "name" ? key : "";
  byId("grid").replaceChildren(...visible.map((item) => thumbOf(item, shownKey)));
  placeOf();
}

const thumbs = new Map();

/** The small picture of an image, a link to it, with the number that it is ordered by. */
function thumbOf(item, key) {
  if (!thumbs.has(item)) thumbs.set(item, makeThumb(item));
  const thumb = thumbs.get(item);
  const line = thumb.querySelector(".key");
  line.hidden = !key;
  line.textContent = key ? `${key} ${key in item.keys ? Number(item.keys[key].toPrecision(4)) : "–"}` : "";
  return thumb;
}

function makeThumb(item) {
  const link = made("a", "thumb");
  link.href = `#${item.element.id}`;
  const picture = ["overlay", "photo", "map"]
    .map((part) => item.element.querySelector(`[data-part="${part}"] img`))
    .find(Boolean);
  if (picture) {
    const small = new Image();
    small.loading = "lazy";
    small.alt = "";
    small.className = picture.className;
    small.src = picture.src;
    link.append(small);
  } else {
    link.append(made("span", "blank", "no picture"));
  }
  const text = made("span", "text");
  const says = item.element.querySelector(".bars tbody th");
  text.append(made("span", "says", says ? says.textContent : item.name), made("span", "key"));
  if (says) text.append(made("span", "name", item.name));
  if (item.flags.length) {
    const flags = made("span", "flags");
    flags.append(...item.flags.map((flag) => made("span", "", flag)));
    text.append(flags);
  }
  link.append(text);
  const entry = made("li");
  entry.append(link);
  return entry;
}

/** Where the opened image is among those that fit. */
function placeOf() {
  const at = visible.indexOf(open);
  byId("pager").hidden = !open || alone;
  byId("finding").hidden = Boolean(open);
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at < 0 || at === visible.length - 1;
  byId("place").textContent = open ? `${at + 1} of ${visible.length}` : "";
}

/** Open an image, or none: then all are seen. */
function show(item, focus = false) {
  const last = open;
  open = item;
  for (const one of items) one.element.classList.toggle("open", one === item);
  byId("grid").hidden = Boolean(item);
  byId("nothing").hidden = visible.length > 0 || Boolean(item);
  byId("looking").hidden = !item;
  placeOf();
  if (item) fillLooking(item);
  refresh();
  if (!focus) return;
  if (item) {
    const heading = item.element.querySelector("h3");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    byId("pager").scrollIntoView({ block: "start" });
  } else if (last) {
    thumbs.get(last)?.querySelector("a").focus();
  }
}

/** The image before or after the opened one. */
function step(by) {
  const next = visible[visible.indexOf(open) + by];
  if (!open || !next) return;
  show(next, true); // at once: a key that is held comes again before the address has changed
  location.hash = next.element.id;
}
