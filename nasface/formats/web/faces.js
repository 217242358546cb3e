// What the network says about faces: once in a box, or from frame to frame.

import { crop } from "./crop.js";
import { apart, findFaces, shareOfSmaller } from "./detector.js";

const EVERY = 30; // frames from one look for new faces to the next
const LOST_SCORE = 0.8; // a face is lost below this share of its first score,
const LOST_SIZE = 1.5; // or when it grows or shrinks by this factor in one frame
const CUTOFF = 1.5; // hertz below which a still landmark is smoothed,
const LESS_LAG = 20; // and what each face size per second of its speed adds
const SPEED_CUTOFF = 1;

/** Whether a box lies in the picture at least partly, and has a size that a face in it can have. */
export function fits([x0, y0, x1, y1], { width, height }) {
  const side = Math.max(x1 - x0, y1 - y0);
  const inside = x1 > -0.5 && y1 > -0.5 && x0 < width - 0.5 && y0 < height - 0.5;
  return inside && side >= 2 && side <= 2 * Math.max(width, height);
}

/** The box of landmarks, rounded outwards to whole pixels as for training. */
export function landmarkBox(landmarks) {
  const [x, y] = [0, 1].map((axis) => landmarks.map((point) => point[axis]));
  return [...[x, y].map((v) => Math.floor(Math.min(...v))), ...[x, y].map((v) => Math.ceil(Math.max(...v)))];
}

/**
 * The network and the detector as functions of a picture on a canvas.
 *
 * @param {object} ort the runtime.
 * @param {{network: object, detector: ?object}} sessions what it runs.
 * @param {{view: object, detector: ?object, sameFace: number}} settings how faces are seen, the constants of the detector,
 *   and the share of the smaller one of two boxes that belong to the same face.
 */
export function finder(ort, sessions, { view, detector, sameFace }) {
  /** Find the landmarks of the face in a box. */
  async function look(context, given) {
    const box = given.map((value) => Math.round(1000 * value) / 1000); // as it is saved, so that it gives the same crop
    const { pixels, toPicture } = crop(context, box, view);
    const size = view.inputSize;
    const started = performance.now();
    const outputs = await sessions.network.run({ crops: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
    const milliseconds = performance.now() - started;
    const { data } = outputs.landmarks;
    const landmarks = Array.from({ length: data.length / 2 }, (_, i) => toPicture([data[2 * i], data[2 * i + 1]]));
    const confidences = Array.from(outputs.confidences.data);
    const score = confidences.reduce((sum, value) => sum + value, 0) / confidences.length;
    return { box, landmarks, confidences, score, milliseconds };
  }

  /** The same, and once more in the box of the landmarks that were found. */
  async function lookTwice(context, box) {
    const face = await look(context, box);
    const own = landmarkBox(face.landmarks);
    return fits(own, context.canvas) ? look(context, own) : face;
  }

  /** Find all faces of a picture; null where there is no detector. */
  async function find(context, turns = detector?.turns) {
    if (!sessions.detector) return null;
    const boxes = await findFaces(ort, sessions.detector, context.canvas, { ...detector, sameFace }, turns);
    const faces = [];
    for (const box of boxes) if (fits(box, context.canvas)) faces.push(await lookTwice(context, box));
    return best(faces);
  }

  function best(faces) {
    const boxes = faces.map((face) => ({ box: landmarkBox(face.landmarks), score: face.score, face }));
    return apart(boxes, sameFace).map(({ face }) => face);
  }

  /**
   * Follow faces from the previous frame of a video to this one, and look for new ones now and then.
   *
   * A face with a box `at` is looked for there, and otherwise in the box of its landmarks.
   */
  async function follow(context, before, frame) {
    const here = [];
    for (const face of before) {
      const old = face.at ?? landmarkBox(face.raw);
      if (!fits(old, context.canvas)) continue;
      const next = { ...(await look(context, old)), id: face.id };
      const growth = (side(landmarkBox(next.landmarks)) + 1) / (side(old) + 1);
      const first = face.at ? next.score : face.first;
      const there = Math.abs(Math.log(growth)) <= Math.log(LOST_SIZE) && next.score >= LOST_SCORE * first;
      if (there || face.at) here.push({ ...next, first, steady: face.at ? null : face.steady });
      else if (!sessions.detector) here.push({ ...next, first, at: old }); // nobody else would find it again
    }
    if (sessions.detector && (frame % EVERY === 0 || !here.length || here.length < before.length)) {
      const turns = here.length ? [0] : [detector.turns[frame % detector.turns.length]];
      for (const face of await find(context, turns)) {
        const box = landmarkBox(face.landmarks);
        const known = here.some((other) => shareOfSmaller(box, landmarkBox(other.landmarks)) > sameFace);
        if (!known) here.push({ ...face, first: face.score });
      }
    }
    return best(here);
  }

  return { look, find, follow };
}

/** Steady a face's landmarks by the One Euro filter (Casiez et al. 2012), as nasface.track does; time in seconds. */
export function steadied(face, time) {
  const raw = face.landmarks;
  const before = face.steady;
  if (!before) return { ...face, raw, steady: { time, points: raw, speeds: raw.map(() => [0, 0]) } };
  const rate = 1 / Math.max(time - before.time, 1e-3);
  const share = (hertz) => 1 / (1 + rate / (2 * Math.PI * hertz));
  const size = Math.max(side(landmarkBox(raw)), 1);
  const speeds = raw.map((point, i) =>
    point.map((value, axis) => {
      const speed = before.speeds[i][axis];
      return speed + share(SPEED_CUTOFF) * ((value - before.points[i][axis]) * rate - speed);
    }),
  );
  const points = raw.map((point, i) => {
    const weight = share(CUTOFF + (LESS_LAG * Math.hypot(...speeds[i])) / size);
    return point.map((value, axis) => before.points[i][axis] + weight * (value - before.points[i][axis]));
  });
  return { ...face, raw, landmarks: points, steady: { time, points, speeds } };
}

function side([x0, y0, x1, y1]) {
  return Math.max(x1 - x0, y1 - y0);
}
