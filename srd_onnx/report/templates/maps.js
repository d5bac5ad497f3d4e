// Maps: a PNG with a palette, of which the indices are the values (see srd_onnx/report/encode.py), and its painting.

const page = document.documentElement;
const ZERO = 127;

/** The 256 colours of each scale, as [r, g, b, r, g, b, ...]; the middle is zero. */
const WHEELS = {
  "blue-red": Uint8Array.from(page.dataset.colours.match(/../g), (pair) => parseInt(pair, 16)),
  "purple-orange": between([[45, 0, 75], [128, 115, 172], [247, 247, 247], [224, 130, 20], [127, 59, 8]]),
  grey: between([[0, 0, 0], [128, 128, 128], [255, 255, 255]]),
};

/** What the colours of each scale are called: against the target, for it, neither. */
const NAMES = {
  "blue-red": { against: "blue", for: "red", neither: "white" },
  "purple-orange": { against: "purple", for: "orange", neither: "white" },
  grey: { against: "dark", for: "bright", neither: "grey" },
};

function between(anchors) {
  const found = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (anchors.length - 1);
    const first = Math.min(Math.floor(at), anchors.length - 2);
    for (let c = 0; c < 3; c++) {
      found[3 * i + c] = Math.round(anchors[first][c] + (at - first) * (anchors[first + 1][c] - anchors[first][c]));
    }
  }
  return found;
}

/** The indices in a data URI of a PNG with a palette, 8 bits and rows that are not filtered. */
async function indicesOf(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const packed = [];
  let width = 0;
  let height = 0;
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "IHDR") [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (name === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const index = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    index.set(rows.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)), y * width);
  }
  return { width, height, index };
}

/** The values of indices. */
function valuesOf(index, top) {
  const table = Float32Array.from({ length: 256 }, (_, i) => {
    const part = (i - ZERO) / ZERO;
    return Math.sign(part) * part * part * top;
  });
  return Float32Array.from(index, (i) => table[i]);
}

const remembered = new WeakMap();

/** {width, height, values, clip} of a map's image; decoded once. */
function mapOf(image) {
  if (!remembered.has(image)) {
    const { top, clip } = image.dataset;
    remembered.set(
      image,
      indicesOf(image.getAttribute("src")).then(({ width, height, index }) => ({
        width,
        height,
        clip: Number(clip),
        values: valuesOf(index, Number(top)),
      })),
    );
  }
  return remembered.get(image);
}

/** The fields of a layer, [{width, height, values}], in the order of its positions; decoded once. */
function fieldsOf(layer) {
  if (!remembered.has(layer)) {
    const { sprite, tops, width, height } = layer.dataset;
    const [w, h] = [Number(width), Number(height)];
    const uri = sprite ? document.getElementById(sprite).dataset.uri : "";
    const found = uri
      ? indicesOf(uri).then(({ index }) =>
          JSON.parse(tops).map((top, p) => ({
            width: w,
            height: h,
            values: valuesOf(index.subarray(p * w * h, (p + 1) * w * h), top),
          })),
        )
      : Promise.resolve([]);
    remembered.set(layer, found);
  }
  return remembered.get(layer);
}

/** Where the colours of values end: the 99.5th percentile of their size, or their maximum, or 1. */
function clipOf(values) {
  const sizes = Float32Array.from(values, Math.abs).sort();
  const at = 0.995 * (sizes.length - 1);
  const low = sizes[Math.floor(at)];
  return low + (sizes[Math.ceil(at)] - low) * (at % 1) || sizes[sizes.length - 1] || 1;
}

/** The values after a Gaussian as wide as the overlay's, mirrored at the border. */
function smooth({ width, height, values }) {
  const sigma = Math.max(width, height) / 100;
  const reach = Math.ceil(4 * sigma);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)));
  const sum = weights.reduce((a, b) => a + b, 0);
  const along = (from, count, stride, other, step) => {
    const to = new Float32Array(from.length);
    for (let line = 0; line < other; line++) {
      for (let i = 0; i < count; i++) {
        let total = 0;
        for (let k = -reach; k <= reach; k++) {
          const j = (((i + k) % (2 * count)) + 2 * count) % (2 * count);
          total += weights[k + reach] * from[line * step + (j < count ? j : 2 * count - 1 - j) * stride];
        }
        to[line * step + i * stride] = total / sum;
      }
    }
    return to;
  };
  return along(along(values, width, 1, height, width), height, width, width, 1);
}

/**
 * Paint values on a canvas. look: {clip, threshold, wheel, over}; over: as opaque as they are large, for an overlay.
 * NaN stays empty.
 */
function paint(canvas, { width, height, values }, { clip, threshold, wheel, over }) {
  [canvas.width, canvas.height] = [width, height];
  const drawing = canvas.getContext("2d");
  const picture = drawing.createImageData(width, height);
  const colours = WHEELS[wheel];
  values.forEach((value, i) => {
    const part = Math.max(-1, Math.min(1, value / clip));
    const size = Math.abs(part);
    if (Number.isNaN(part) || (size < threshold && over)) return;
    const shown = size < threshold ? 0 : over ? Math.sign(part) * (0.45 + 0.35 * size) : part;
    const entry = 3 * Math.round(127.5 + 127.5 * shown);
    picture.data.set(colours.subarray(entry, entry + 3), 4 * i);
    picture.data[4 * i + 3] = over ? 255 * 0.88 * Math.min(1, 1.1 * size) : 255;
  });
  drawing.putImageData(picture, 0, 0);
}

/** Four digits, a sign in front. */
function signed(value) {
  const text = Math.abs(value).toPrecision(3);
  return (value < 0 ? "−" : "+") + (text.includes("e") ? text : String(Number(text)));
}

/** A new element with a class and a text. */
function made(tag, className = "", text = "") {
  const found = document.createElement(tag);
  if (className) found.className = className;
  found.textContent = text;
  return found;
}
