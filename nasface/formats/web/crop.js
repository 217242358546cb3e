// From the box of a face to the network's input, as nasface.data.crop does it: the same square, filter and rounding.
// A canvas would be shorter, but browsers scale pictures each in their own way, and that moves landmarks.

const REDUCING_GAP = 3; // a face this many times as large as its crop is averaged over whole pixels first
const REACH = 2 * REDUCING_GAP + 2; // more pixels around the square than the filter sees
const BITS = 22; // precision of Pillow's filter weights

/**
 * Find the square around a box.
 *
 * @param {number[]} box x0, y0, x1, y1 with integers at pixel centres.
 * @param {{inputSize: number, boxScale: number}} view how the network sees a face.
 * @returns {{edge: number[], end: number[], scale: number}} its corners, where pixel i covers [i, i + 1], and how many
 *   pixels of the picture one pixel of the crop covers.
 */
export function square([x0, y0, x1, y1], { inputSize, boxScale }) {
  const side = Math.max(x1 - x0, y1 - y0) * boxScale;
  const scale = side / inputSize;
  const edge = [x0 + (x1 - x0) / 2, y0 + (y1 - y0) / 2].map((centre) => centre + 0.5 - side / 2);
  return { edge, end: edge.map((value) => value + inputSize * scale), scale };
}

/**
 * Crop a face. What lies outside the picture is black.
 *
 * @param {CanvasRenderingContext2D} context the picture.
 * @param {number[]} box x0, y0, x1, y1.
 * @param {{inputSize: number, boxScale: number}} view how the network sees a face.
 * @returns {{pixels: Uint8Array, toPicture: function(number[]): number[]}} RGB pixels (size, size, 3), and the map of
 *   a point of the crop to the picture.
 */
export function crop(context, box, view) {
  const { edge, end, scale } = square(box, view);
  const offset = edge.map((value) => value + scale / 2 - 0.5);
  return {
    pixels: resample(context, edge, end, view.inputSize),
    toPicture: ([x, y]) => [x * scale + offset[0], y * scale + offset[1]],
  };
}

function resample(context, edge, end, size) {
  const whole = [context.canvas.width, context.canvas.height];
  const factor = Math.max(1, Math.floor((end[0] - edge[0]) / size / REDUCING_GAP));
  const low = edge.map((value) => Math.max((Math.floor(value / factor) - REACH) * factor, 0));
  const high = end.map((value, axis) => Math.min((Math.ceil(value / factor) + REACH) * factor, whole[axis]));
  const region = context.getImageData(low[0], low[1], high[0] - low[0], high[1] - low[1]);
  const [left, top] = edge.map((value, axis) => (value - low[axis]) / factor);
  const [right, bottom] = end.map((value, axis) => (value - low[axis]) / factor);
  const x0 = Math.floor(left) - REACH;
  const y0 = Math.floor(top) - REACH;
  const width = Math.ceil(right) + REACH - x0;
  const height = Math.ceil(bottom) + REACH - y0;
  const reduced = padded(region, factor, x0, y0, width, height);
  const across = weights(width, left - x0, right - x0, size);
  const down = weights(height, top - y0, bottom - y0, size);
  const narrow = filtered(reduced, across, height, 3 * width, 3, 3 * size, 3);
  return filtered(narrow, down, size, 3, 3 * size, 3, 3 * size);
}

/** Average blocks of factor x factor pixels, and take a rectangle of the result; RGB, black outside. */
function padded({ data, width: regionWidth, height: regionHeight }, factor, x0, y0, width, height) {
  const pixels = new Uint8Array(3 * width * height);
  const columns = Math.ceil(regionWidth / factor);
  const rows = Math.ceil(regionHeight / factor);
  for (let y = Math.max(0, y0); y < Math.min(rows, y0 + height); y++) {
    for (let x = Math.max(0, x0); x < Math.min(columns, x0 + width); x++) {
      const target = 3 * ((y - y0) * width + x - x0);
      if (factor === 1) {
        const source = 4 * (y * regionWidth + x);
        for (let c = 0; c < 3; c++) pixels[target + c] = data[source + c];
      } else {
        averageBlock(data, regionWidth, regionHeight, factor, x, y, pixels, target);
      }
    }
  }
  return pixels;
}

function averageBlock(data, regionWidth, regionHeight, factor, x, y, pixels, target) {
  const lastX = Math.min((x + 1) * factor, regionWidth);
  const lastY = Math.min((y + 1) * factor, regionHeight);
  const count = (lastX - x * factor) * (lastY - y * factor);
  const share = Math.floor(2 ** 24 / count);
  const sum = [0, 0, 0];
  for (let row = y * factor; row < lastY; row++) {
    for (let column = x * factor; column < lastX; column++) {
      const source = 4 * (row * regionWidth + column);
      for (let c = 0; c < 3; c++) sum[c] += data[source + c];
    }
  }
  for (let c = 0; c < 3; c++) pixels[target + c] = Math.floor(((sum[c] + Math.floor(count / 2)) * share) / 2 ** 24);
}

/** The weights of the triangle filter for each pixel of the result: where they begin, and whole numbers. */
function weights(length, from, to, size) {
  [from, to] = [Math.fround(from), Math.fround(to)];
  const scale = Math.fround(to - from) / size;
  const reach = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), length);
    const values = [];
    for (let j = first; j < last; j++) values.push(Math.max(0, 1 - Math.abs((j - centre + 0.5) * (1 / reach))));
    const total = values.reduce((sum, value) => sum + value, 0);
    return { first, values: values.map((value) => Math.trunc(0.5 + (value / total) * 2 ** BITS)) };
  });
}

/** Filter along one axis: of `lines` lines, each `stride` apart, into lines `outStride` apart. */
function filtered(pixels, along, lines, stride, step, outStride, outStep) {
  const result = new Uint8Array(3 * along.length * lines);
  for (let i = 0; i < along.length; i++) {
    const { first, values } = along[i];
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** (BITS - 1);
        let source = line * stride + first * step + c;
        for (let j = 0; j < values.length; j++, source += step) sum += values[j] * pixels[source];
        result[line * outStride + i * outStep + c] = Math.min(255, Math.floor(sum / 2 ** BITS));
      }
    }
  }
  return result;
}
