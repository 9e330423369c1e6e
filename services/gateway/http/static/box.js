// The box on the photo: moved, resized and drawn by mouse, touch and keyboard. All values are fractions of the photo.

const SMALLEST = 0.05;
const STEP = 0.02;
const SMALL_STEP = 0.005;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const within = (value, low, high) => Math.min(Math.max(value, low), high);

export class BoxEditor {
  /** `changed(box, settled)` hears of every change by the user; `settled` is false while a drag goes on. */
  constructor(stage, element, changed) {
    this.stage = stage;
    this.element = element;
    this.changed = changed;
    this.box = null;
    element.addEventListener("pointerdown", (event) => this.#grab(event));
    stage.addEventListener("pointerdown", (event) => this.#draw(event));
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Shows a box, or none. */
  show(box) {
    this.box = box;
    this.element.hidden = !box;
    this.stage.classList.toggle("boxed", Boolean(box));
    if (!box) return;
    const style = this.element.style;
    style.left = `${box.x * 100}%`;
    style.top = `${box.y * 100}%`;
    style.width = `${box.width * 100}%`;
    style.height = `${box.height * 100}%`;
  }

  #grab(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    const corner = event.target.dataset.corner;
    const before = { ...this.box };
    const start = this.#place(event);
    (corner ? event.target : this.element).focus({ preventScroll: true });
    this.#follow(event, (now) => {
      const dx = now.x - start.x;
      const dy = now.y - start.y;
      return corner ? stretch(before, corner, dx, dy) : move(before, dx, dy);
    });
  }

  #draw(event) {
    if (event.button !== 0 || event.pointerType === "touch") return; // a finger outside the box scrolls the page
    event.preventDefault();
    const start = this.#place(event);
    this.#follow(event, (now) => {
      const left = Math.min(start.x, now.x);
      const top = Math.min(start.y, now.y);
      const width = Math.abs(now.x - start.x);
      const height = Math.abs(now.y - start.y);
      if (width < SMALLEST / 2 || height < SMALLEST / 2) return null; // a click, so far
      return clamp({ x: left, y: top, width: Math.max(width, SMALLEST), height: Math.max(height, SMALLEST) });
    });
  }

  #follow(event, boxAt) {
    const pointer = event.pointerId;
    let last = null;
    const isOurs = (other) => other.pointerId === pointer;
    const moved = (other) => {
      if (!isOurs(other)) return;
      const box = boxAt(this.#place(other));
      if (!box) return;
      last = box;
      this.show(box);
      this.changed(box, false);
    };
    const done = (other) => {
      if (!isOurs(other)) return;
      removeEventListener("pointermove", moved);
      removeEventListener("pointerup", done);
      removeEventListener("pointercancel", done);
      this.element.classList.remove("held");
      if (last) this.changed(last, true);
    };
    this.element.classList.add("held");
    addEventListener("pointermove", moved);
    addEventListener("pointerup", done);
    addEventListener("pointercancel", done);
  }

  #key(event) {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const size = event.altKey ? SMALL_STEP : STEP;
    const dx = step[0] * size;
    const dy = step[1] * size;
    const corner = event.target.dataset.corner ?? (event.shiftKey ? "se" : undefined);
    const box = corner ? stretch(this.box, corner, dx, dy) : move(this.box, dx, dy);
    this.show(box);
    this.changed(box, true);
  }

  #place(event) {
    const area = this.stage.getBoundingClientRect();
    return {
      x: within((event.clientX - area.left) / area.width, 0, 1),
      y: within((event.clientY - area.top) / area.height, 0, 1),
    };
  }
}

function move(box, dx, dy) {
  return { ...box, x: within(box.x + dx, 0, 1 - box.width), y: within(box.y + dy, 0, 1 - box.height) };
}

function stretch(box, corner, dx, dy) {
  let { x: left, y: top } = box;
  let right = left + box.width;
  let bottom = top + box.height;
  if (corner.includes("w")) left = within(left + dx, 0, right - SMALLEST);
  if (corner.includes("e")) right = within(right + dx, left + SMALLEST, 1);
  if (corner.includes("n")) top = within(top + dy, 0, bottom - SMALLEST);
  if (corner.includes("s")) bottom = within(bottom + dy, top + SMALLEST, 1);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

function clamp(box) {
  const width = Math.min(box.width, 1);
  const height = Math.min(box.height, 1);
  return { x: within(box.x, 0, 1 - width), y: within(box.y, 0, 1 - height), width, height };
}

/** Says in words where a box is. */
export function describe(box) {
  const percent = (value) => Math.round(value * 100);
  return `${percent(box.width)} by ${percent(box.height)} percent, from ${percent(box.x)} across and ${percent(box.y)} down`;
}
