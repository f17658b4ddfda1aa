/** Mouse, touch and key events on the map as gestures: hover, leave, pin, pan, zoom, step; in pixels of the element. */

const DRAG = 5; // pixels that the pointer may move during a click
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = { "+": 1.25, "=": 1.25, "-": 0.8, _: 0.8 };

/** Listen on `target`; `on` has a function for each: hover(x, y), leave(), pin(x, y), pan(dx, dy), zoom(factor, x, y) ->
 * whether it changed anything, step(dx, dy, isFast), confirm(), reset(). */
export function listen(target, on) {
  const down = new Map();
  let [pressed, isDrag, isPinch, hasMoved] = [null, false, false, false];

  const at = ({ clientX, clientY }) => {
    const box = target.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };

  target.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    down.set(event.pointerId, at(event));
    pressed = at(event);
    isPinch = down.size > 1;
    isDrag = isPinch;
    try {
      target.setPointerCapture(event.pointerId);
    } catch {
      // The pointer has already been released.
    }
    if (event.pointerType === "touch") on.hover(...pressed);
  });

  target.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    hasMoved ||= Boolean(event.movementX || event.movementY); // false if the page scrolled under a still pointer
    const before = down.get(event.pointerId);
    if (!before) return on.hover(x, y);
    down.set(event.pointerId, [x, y]);
    if (down.size > 1) return pinch(event.pointerId, before, [x, y]);
    isDrag ||= Math.hypot(x - pressed[0], y - pressed[1]) > DRAG;
    if (event.pointerType === "touch") on.hover(x, y); // one finger hovers, two fingers pan
    else if (isDrag) on.pan(x - before[0], y - before[1]);
    return undefined;
  });

  function pinch(id, before, now) {
    const other = [...down].find(([key]) => key !== id)[1];
    const distance = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
    on.zoom(distance(now, other) / distance(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    on.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }

  target.addEventListener("pointerup", (event) => {
    if (!down.delete(event.pointerId) || down.size) return;
    const isTouch = event.pointerType === "touch";
    if (isTouch ? !isPinch : !isDrag) on.pin(...at(event));
    if (isTouch) on.leave();
    pressed = null;
  });

  target.addEventListener("pointercancel", (event) => {
    down.delete(event.pointerId);
    on.leave();
  });

  target.addEventListener("pointerleave", () => {
    hasMoved = false;
    if (!down.size) on.leave();
  });

  target.addEventListener(
    "wheel",
    (event) => {
      if (!hasMoved && !event.ctrlKey && document.activeElement !== target) return; // the page is being scrolled
      const pixels = event.deltaMode ? event.deltaY * 30 : event.deltaY;
      if (on.zoom(Math.exp(-pixels / (event.ctrlKey ? 100 : 500)), ...at(event))) event.preventDefault();
    },
    { passive: false },
  );

  target.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (STEPS[event.key]) on.step(...STEPS[event.key], event.shiftKey);
    else if (KEYS[event.key]) on.zoom(KEYS[event.key]);
    else if (event.key === "Enter" || event.key === " ") on.confirm();
    else if (event.key === "0" || event.key === "Home") on.reset();
    else return;
    event.preventDefault();
  });
}
