// The page: a picture or the camera, the faces in it, and what is said about them.

import { boxLayer } from "./boxes.js";
import { frameCounter, nextFrame, openCamera } from "./camera.js";
import { finder, steadied } from "./faces.js";
import { loadRuntime } from "./runtime.js";

const LONGEST = 4096; // pixels of a picture's longer side; some browsers have no larger canvas
const UNSURE = 0.5; // landmarks with a lower confidence are drawn hollow

const settings = JSON.parse(document.getElementById("settings").textContent);
const $ = (id) => document.getElementById(id);
const stage = $("stage");
const picture = $("picture");
const overlay = $("overlay");
const video = document.createElement("video");
video.muted = true;
video.playsInline = true;
const context = picture.getContext("2d", { willReadFrequently: true });

let faces = []; // what is shown
let shot = 0; // number of the picture or camera that is shown; what belongs to an earlier one is dropped
let camera = null; // how to stop it, while it is on
let ids = 0;
let name = "picture";
const wanted = new Map(); // id -> box that the user has moved and the network has not seen
const removed = new Set(); // ids of the faces that the user has removed since the last frame
let looking = false;
let failure = ""; // why there is no network
let shrink = 1; // by which a large picture has been shrunk

// --- what is said

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function report(framesASecond = null) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const set = (id, text) => ($(id).textContent = text);
  set("faces", String(faces.length));
  set("confidence", faces.length ? mean(faces.map((face) => face.score)).toFixed(2) : "–");
  set("milliseconds", faces.length ? `${mean(faces.map((face) => face.milliseconds)).toFixed(1)} ms` : "–");
  set("rate", framesASecond === null ? "–" : framesASecond.toFixed(1));
  $("save").disabled = !faces.length;
}

function plural(count) {
  return count === 1 ? "one face" : `${count} faces`;
}

// --- what is drawn

const showBoxes = boxLayer($("boxes"), picture, {
  moved(id, box) {
    wanted.set(id, box);
    if (!camera) lookAgain();
  },
  removed(id) {
    faces = faces.filter((face) => face.id !== id);
    wanted.delete(id);
    removed.add(id);
    show();
    stage.focus({ preventScroll: true });
  },
});

function show(framesASecond = null) {
  for (const face of faces) face.id ??= ++ids;
  showBoxes(faces);
  draw();
  report(framesASecond);
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = overlay;
  const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
  if (overlay.width !== width || overlay.height !== height) [overlay.width, overlay.height] = [width, height];
  const pen = overlay.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, width, height);
  const scale = width / picture.width;
  for (const face of faces) drawFace(pen, face, (point) => point.map((value) => (value + 0.5) * scale), ratio);
}

function drawFace(pen, { landmarks, confidences, box }, place, ratio) {
  const points = landmarks.map(place);
  const [left, right] = [place([box[0], 0])[0], place([box[2], 0])[0]];
  const radius = Math.min(3.2 * ratio, Math.max(1.2 * ratio, (right - left) / 90));
  pen.lineJoin = "round";
  for (const [width, colour] of [[2.2 * radius, "rgb(0 0 0 / 0.35)"], [0.9 * radius, "#7fe3ff"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    for (const contour of settings.contours) {
      pen.beginPath();
      contour.forEach((index, i) => pen[i ? "lineTo" : "moveTo"](...points[index]));
      pen.stroke();
    }
  }
  points.forEach(([x, y], i) => {
    const sure = confidences[i] >= UNSURE;
    pen.beginPath();
    pen.arc(x, y, sure ? radius : 1.3 * radius, 0, 2 * Math.PI);
    pen.lineWidth = 0.8 * radius;
    pen.strokeStyle = sure ? "rgb(0 0 0 / 0.55)" : "#ff9d2e";
    pen.stroke();
    if (!sure) return;
    pen.fillStyle = "#ffffff";
    pen.fill();
  });
}

function resize(width, height) {
  [picture.width, picture.height] = [width, height];
  stage.style.setProperty("--ratio", String(width / height));
  stage.classList.remove("empty");
}

// --- a picture

async function showFile(file) {
  stopCamera();
  const own = ++shot;
  let bitmap;
  try {
    // as nasface reads pictures: upright, and without their colour profile
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    say(`${file.name || "What you gave"} cannot be read as a picture; choose a JPEG, PNG or WebP file.`, "bad");
    return;
  }
  if (own !== shot) return;
  shrink = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  resize(Math.max(1, Math.round(bitmap.width * shrink)), Math.max(1, Math.round(bitmap.height * shrink)));
  stage.classList.remove("mirrored");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, picture.width, picture.height);
  bitmap.close();
  name = file.name || "picture";
  faces = [];
  wanted.clear();
  $("add").disabled = false;
  show();
  say(document.body.classList.contains("ready") ? "Looking for faces …" : "Loading the network …");
  await nextPaint();
  const see = await ready;
  if (own !== shot) return;
  if (!see) {
    say(failure, "bad");
    return;
  }
  const found = await see.find(context);
  if (own !== shot) return;
  faces = found ?? [];
  if (faces.length) say(`Found ${plural(faces.length)}. Drag a box, or its corners, to change where the network looks.`);
  else if (found) say("No face was found. Add a box and put it around a face, from the brows to the chin.");
  else await addBox();
  show();
}

function nextPaint() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

/** Look at the boxes that the user has moved; of the places a box has been to, only the last one is looked at. */
async function lookAgain() {
  if (looking) return;
  looking = true;
  while (wanted.size && !camera) {
    const own = shot;
    const [[id, box]] = wanted;
    wanted.delete(id);
    const face = await (await ready).look(context, box);
    if (own !== shot) continue;
    faces = faces.map((each) => (each.id === id ? { ...face, id } : each));
    show();
  }
  looking = false;
}

function middleBox() {
  const side = 0.45 * Math.min(picture.width, picture.height);
  const [x, y] = [(picture.width - 1) / 2, (picture.height - 1) / 2];
  return [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
}

async function addBox() {
  if (camera) {
    wanted.set(++ids, middleBox());
    return;
  }
  const own = shot;
  const see = await ready;
  if (!see) return;
  const face = { ...(await see.look(context, middleBox())), id: ++ids };
  if (own !== shot) return;
  faces = [...faces, face];
  say("Put the box around a face, from the brows to the chin.");
  show();
  $("boxes").lastElementChild.focus({ preventScroll: true });
}

// --- the camera

async function startCamera(deviceId = null) {
  stopCamera();
  const own = ++shot;
  say("Waiting for the camera …");
  let opened;
  try {
    opened = await openCamera(video, deviceId);
  } catch (error) {
    say(`The camera cannot be used (${error.message || error.name}). Allow it for this page, or choose a picture.`, "bad");
    return;
  }
  if (own !== shot) {
    opened.stop();
    return;
  }
  camera = opened;
  name = "camera";
  shrink = 1;
  faces = [];
  wanted.clear();
  resize(video.videoWidth, video.videoHeight);
  stage.classList.toggle("mirrored", opened.mirrored);
  $("camera").textContent = "Stop the camera";
  $("other").hidden = opened.next === null;
  $("other").onclick = () => startCamera(opened.next);
  $("add").disabled = false;
  await watch(own);
}

async function watch(own) {
  const see = await ready;
  if (own !== shot) return;
  if (!see) {
    stopCamera();
    say(failure, "bad");
    return;
  }
  const count = frameCounter();
  let said = -1;
  for (let frame = 0; own === shot; frame++) {
    if (video.videoWidth !== picture.width || video.videoHeight !== picture.height) {
      resize(video.videoWidth, video.videoHeight); // the phone has been turned
    }
    context.drawImage(video, 0, 0);
    if (!faces.length && !settings.detector) wanted.set(++ids, middleBox());
    const before = faces.map((face) => ({ ...face, at: wanted.get(face.id) ?? face.at }));
    for (const [id, at] of wanted) if (!faces.some((face) => face.id === id)) before.push({ id, at });
    wanted.clear();
    removed.clear();
    const found = await see.follow(context, before, frame);
    if (own !== shot) return;
    const left = found.filter(({ id }) => !removed.has(id));
    faces = left.map((face) => steadied(face, performance.now() / 1000));
    show(count(performance.now()));
    if (said !== faces.length) say(faces.length ? `Following ${plural(faces.length)}.` : "Looking for a face …");
    said = faces.length;
    await nextFrame(video);
  }
}

function stopCamera() {
  if (!camera) return;
  camera.stop();
  camera = null;
  shot++;
  video.srcObject = null;
  $("camera").textContent = "Use the camera";
  $("other").hidden = true;
  say(`The camera is off. ${faces.length ? "The last frame is still here." : ""}`);
  show();
}

// --- what can be taken away

/** Save the landmarks, in the form of nasface predict's landmarks.csv. */
function save() {
  const count = settings.landmarks;
  const points = Array.from({ length: count }, (_, i) => [`lm${i}_x`, `lm${i}_y`]).flat();
  const sure = Array.from({ length: count }, (_, i) => `lm${i}_confidence`);
  const rows = faces.map((face, i) => {
    const [box, landmarks] = [face.box, face.landmarks.flat()].map((row) => row.map((v) => (v + 0.5) / shrink - 0.5));
    const numbers = [...box, face.score, ...landmarks, ...face.confidences];
    return [`"${name.replaceAll('"', '""')}"`, i, ...numbers.map((value) => Number(value.toFixed(3)))];
  });
  const header = ["image", "face", "x0", "y0", "x1", "y1", "score", ...points, ...sure];
  const text = [header, ...rows].map((row) => row.join(",")).join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
  link.download = "landmarks.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- the beginning

function listen() {
  $("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) showFile(file);
    event.target.value = ""; // so that the same file can be chosen again
  });
  $("camera").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
  $("add").addEventListener("click", () => addBox());
  $("save").addEventListener("click", save);
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) showFile(file);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) showFile(file);
  });
  new ResizeObserver(draw).observe(stage);
}

async function bytes(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function load() {
  const files = [bytes(settings.network), settings.detector ? bytes(settings.detector.file) : null];
  const [ort, network, detector] = await Promise.all([loadRuntime(settings.runtime), ...files]);
  const open = (content) => content && ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  const see = finder(ort, { network: await open(network), detector: await open(detector) }, settings);
  await see.look(context, middleBox()); // the first time takes longer, and is not to be counted
  return see;
}

/** The network; null if it cannot be loaded, which is then said. */
const ready = load().then(
  (see) => {
    document.body.classList.add("ready");
    if (!shot) say("Ready. Give a picture, or use the camera.");
    return see;
  },
  (error) => {
    shot++;
    stopCamera();
    failure =
      `The network could not be loaded (${error.message}). Load the page again. If that does not help, a file of the ` +
      "page is missing, or the runtime is not the one that the page was made for.";
    say(failure, "bad");
    return null;
  },
);

say("Loading the network …");
listen();
