// Face boxes by YuNet (Wu et al. 2023), as in nasface.detect.

const STRIDES = [8, 16, 32];
const small = document.createElement("canvas");
const brush = small.getContext("2d", { willReadFrequently: true });

/**
 * Find faces, and turn their boxes into boxes of landmarks.
 *
 * @param {object} ort the runtime.
 * @param {object} session YuNet.
 * @param {HTMLCanvasElement} picture where to look.
 * @param {object} settings the constants of nasface.detect.
 * @param {number[]} turns angles in degrees by which the picture is turned, one after the other.
 * @returns {Promise<number[][]>} boxes x0, y0, x1, y1 with integers at pixel centres, the surest first.
 */
export async function findFaces(ort, session, picture, settings, turns) {
  const shrink = Math.min(1, settings.pixels / Math.max(picture.width, picture.height));
  const size = [picture.width, picture.height].map((length) => Math.max(1, Math.round(length * shrink)));
  const found = [];
  for (const degrees of turns) found.push(...(await findTurned(ort, session, picture, size, settings, degrees)));
  return apart(found, settings.sameFace).map(({ box }) =>
    box.map((value) => value / shrink - 0.5),
  );
}

async function findTurned(ort, session, picture, [width, height], settings, degrees) {
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  const turnedWidth = Math.ceil(Math.abs(cos) * width + Math.abs(sin) * height - 1e-6);
  const turnedHeight = Math.ceil(Math.abs(sin) * width + Math.abs(cos) * height - 1e-6);
  [small.width, small.height] = [turnedWidth, turnedHeight].map((length) => 32 * Math.ceil(length / 32));
  brush.imageSmoothingQuality = "high";
  brush.setTransform(cos, -sin, sin, cos, turnedWidth / 2, turnedHeight / 2);
  brush.drawImage(picture, -width / 2, -height / 2, width, height);
  const outputs = await session.run({ input: toTensor(ort) });
  const faces = apart(decoded(outputs, settings.score), settings.iou, iou);
  return faces.map(({ box: [x0, y0, x1, y1], score }) => {
    const x = (x0 + x1) / 2 - turnedWidth / 2;
    const y = (y0 + y1) / 2 + settings.down * (y1 - y0) - turnedHeight / 2;
    const middle = [cos * x - sin * y + width / 2, sin * x + cos * y + height / 2];
    // the box of an ellipse that has the size of the landmarks' box and is turned back
    const half = [(settings.width * (x1 - x0)) / 2, (settings.height * (y1 - y0)) / 2];
    const halfBack = [Math.hypot(half[0] * cos, half[1] * sin), Math.hypot(half[0] * sin, half[1] * cos)];
    return { box: [-1, -1, 1, 1].map((sign, i) => middle[i % 2] + sign * halfBack[i % 2]), score };
  });
}

/** The canvas as YuNet takes it: blue, green, red; 0 to 255; black where the canvas is empty. */
function toTensor(ort) {
  const { width, height } = small;
  const { data } = brush.getImageData(0, 0, width, height);
  const count = width * height;
  const values = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) values[c * count + i] = data[4 * i + 2 - c];
  }
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

/** YuNet's outputs as boxes in edge coordinates of its input. */
function decoded(outputs, least) {
  const faces = [];
  for (const stride of STRIDES) {
    const [sure, there, boxes] = ["cls", "obj", "bbox"].map((name) => outputs[`${name}_${stride}`].data);
    const columns = small.width / stride;
    for (let i = 0; i < sure.length; i++) {
      const score = Math.sqrt(Math.min(1, Math.max(0, sure[i])) * Math.min(1, Math.max(0, there[i])));
      if (score < least) continue;
      const x = ((i % columns) + boxes[4 * i]) * stride;
      const y = (Math.floor(i / columns) + boxes[4 * i + 1]) * stride;
      const halfWidth = (Math.exp(boxes[4 * i + 2]) * stride) / 2;
      const halfHeight = (Math.exp(boxes[4 * i + 3]) * stride) / 2;
      faces.push({ box: [x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight], score });
    }
  }
  return faces;
}

/** Of faces whose boxes share more than `most` (of the smaller box, or as `share` says), leave the surest. */
export function apart(faces, most, share = shareOfSmaller) {
  const kept = [];
  for (const face of [...faces].sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => share(face.box, other.box) <= most)) kept.push(face);
  }
  return kept;
}

/** How much of the smaller one of two boxes lies in the other. */
export function shareOfSmaller(a, b) {
  return commonArea(a, b) / Math.max(Math.min(area(a), area(b)), 1e-9);
}

/** The intersection of two boxes over their union. */
function iou(a, b) {
  const common = commonArea(a, b);
  return common / Math.max(area(a) + area(b) - common, 1e-9);
}

function commonArea(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(0, width) * Math.max(0, height);
}

function area([x0, y0, x1, y1]) {
  return (x1 - x0) * (y1 - y0);
}
