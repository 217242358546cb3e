// Face boxes over the picture, which can be moved and resized with a pointer or the keyboard.

const CORNERS = ["nw", "ne", "sw", "se"];
const STEP = 0.01; // of the picture's longer side, by which a key moves a box; with Shift five times as much
const GROWTH = 1.05;
const SMALLEST = 8; // pixels

/**
 * Show boxes over a picture.
 *
 * @param {HTMLElement} layer an element that covers the picture exactly.
 * @param {HTMLCanvasElement} picture the picture.
 * @param {{moved: function(number, number[]): void, removed: function(number): void}} tell what is told when the user
 *   has moved or removed the box of a face, by its id.
 * @returns {function(object[]): void} shows the boxes of these faces.
 */
export function boxLayer(layer, picture, tell) {
  const shown = new Map(); // id -> element
  const boxes = new Map(); // id -> box
  let dragged = null;

  function show(faces) {
    for (const [id, element] of shown) {
      if (faces.some((face) => face.id === id)) continue;
      element.remove();
      shown.delete(id);
      boxes.delete(id);
    }
    faces.forEach((face, i) => {
      if (!shown.has(face.id)) shown.set(face.id, layer.appendChild(element(face.id)));
      const label = `Face ${i + 1}: arrow keys move its box, plus and minus resize it, Delete removes it`;
      shown.get(face.id).setAttribute("aria-label", label);
      if (dragged?.id !== face.id) place(face.id, face.box);
    });
  }

  function place(id, box) {
    boxes.set(id, box);
    const [x0, y0, x1, y1] = box;
    const { style } = shown.get(id);
    style.left = `${(100 * (x0 + 0.5)) / picture.width}%`;
    style.top = `${(100 * (y0 + 0.5)) / picture.height}%`;
    style.width = `${(100 * (x1 - x0)) / picture.width}%`;
    style.height = `${(100 * (y1 - y0)) / picture.height}%`;
  }

  function move(id, box) {
    place(id, within(box, picture));
    tell.moved(id, boxes.get(id));
  }

  function element(id) {
    const box = document.createElement("div");
    box.className = "box";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    for (const corner of CORNERS) {
      const handle = box.appendChild(document.createElement("span"));
      handle.className = `handle ${corner}`;
      handle.dataset.corner = corner;
    }
    const remove = box.appendChild(document.createElement("button"));
    remove.type = "button";
    remove.className = "remove";
    remove.textContent = "×";
    remove.setAttribute("aria-label", "Remove this face");
    remove.addEventListener("click", () => tell.removed(id));
    box.addEventListener("pointerdown", (event) => {
      if (event.target === remove || event.button) return;
      dragged = { id, corner: event.target.dataset.corner, from: [event.clientX, event.clientY], box: boxes.get(id) };
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      if (dragged?.id === id) move(id, draggedTo(event));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      box.addEventListener(end, () => {
        if (dragged?.id === id) dragged = null;
      });
    }
    box.addEventListener("keydown", (event) => {
      if (event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Delete" || event.key === "Backspace") tell.removed(id);
      else {
        const changed = byKey(event, boxes.get(id));
        if (!changed) return;
        move(id, changed);
      }
      event.preventDefault();
    });
    return box;
  }

  function draggedTo(event) {
    const { width, height } = layer.getBoundingClientRect();
    const mirrored = layer.closest(".mirrored") ? -1 : 1;
    const dx = ((event.clientX - dragged.from[0]) * mirrored * picture.width) / width;
    const dy = ((event.clientY - dragged.from[1]) * picture.height) / height;
    const [x0, y0, x1, y1] = dragged.box;
    if (!dragged.corner) return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
    const [left, top] = [dragged.corner.includes("w"), dragged.corner.includes("n")];
    return [
      left ? Math.min(x0 + dx, x1 - SMALLEST) : x0,
      top ? Math.min(y0 + dy, y1 - SMALLEST) : y0,
      left ? x1 : Math.max(x1 + dx, x0 + SMALLEST),
      top ? y1 : Math.max(y1 + dy, y0 + SMALLEST),
    ];
  }

  function byKey({ key, shiftKey }, [x0, y0, x1, y1]) {
    const step = STEP * Math.max(picture.width, picture.height) * (shiftKey ? 5 : 1);
    const across = layer.closest(".mirrored") ? -step : step;
    const way = { ArrowLeft: [-across, 0], ArrowRight: [across, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key];
    if (way) return [x0 + way[0], y0 + way[1], x1 + way[0], y1 + way[1]];
    const growth = { "+": GROWTH, "=": GROWTH, "-": 1 / GROWTH, _: 1 / GROWTH }[key];
    if (!growth) return null;
    const [x, y, w, h] = [(x0 + x1) / 2, (y0 + y1) / 2, ((x1 - x0) * growth) / 2, ((y1 - y0) * growth) / 2];
    return Math.max(w, h) < SMALLEST / 2 ? null : [x - w, y - h, x + w, y + h];
  }

  return show;
}

/** A box of the same size whose middle lies in the picture, and which is not larger than the picture. */
function within([x0, y0, x1, y1], { width, height }) {
  const [w, h] = [Math.min(x1 - x0, width), Math.min(y1 - y0, height)];
  const x = Math.min(Math.max((x0 + x1) / 2, 0), width - 1);
  const y = Math.min(Math.max((y0 + y1) / 2, 0), height - 1);
  return [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
}
