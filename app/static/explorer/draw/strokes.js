/** Strokes as a picture of what the model learnt: on its paper, as wide as MNIST's, and of digits in the middle as there. */

const LEARNT = 28; // pixels of an MNIST picture, whose digits fill a box of 20
const BOX = 20 / LEARNT;
const WIDTH = 2.6 / LEARNT; // of a stroke
const SCALE = 10; // pixels of a drawing for one of the model's

export const resolution = ({ width, height }) => [width * SCALE, height * SCALE];

/** Draw strokes, each a `colour` and `points` [x, y] in [0, 1], smooth, moved by `transform` {scale, x, y} which leaves
 * their width alone. */
function stroke(context, strokes, width, height, { scale, x, y }) {
  context.lineWidth = WIDTH * Math.min(width, height);
  context.lineCap = context.lineJoin = "round";
  const at = ([left, top]) => [(left * scale + x) * width, (top * scale + y) * height];
  for (const { colour, points: line } of strokes) {
    const points = line.map(at);
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [a, b] = [points[i], points[i + 1]];
      context.quadraticCurveTo(...a, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

/** Draw a drawing, `{paper, strokes, start}` with a bitmap to start from or null, on all of a canvas. */
export function paintDrawing(canvas, { paper, strokes, start }, transform = { scale: 1, x: 0, y: 0 }) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { scale, x, y } = transform;
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  if (start) context.drawImage(start, x * width, y * height, scale * width, scale * height);
  stroke(context, strokes, width, height, transform);
}

/** The box and the centre of mass of the ink on a canvas, in [0, 1]; null where there is none. */
function measure(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [left, right, top, bottom, mass, across, down] = [width, 0, height, 0, 0, 0, 0];
  for (let i = 0; i < width * height; i++) {
    const ink = data[4 * i];
    if (ink < 32) continue;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x + 1), Math.min(top, y), Math.max(bottom, y + 1)];
    [mass, across, down] = [mass + ink, across + ink * (x + 0.5), down + ink * (y + 0.5)];
  }
  if (!mass) return null;
  return { size: [(right - left) / width, (bottom - top) / height], centre: [across / mass / width, down / mass / height] };
}

/** The transform that makes the ink's longer side that of MNIST's box, and puts its centre of mass in the middle. */
function centring(canvas, drawing) {
  paintDrawing(canvas, drawing);
  const first = measure(canvas);
  if (!first) return undefined;
  const longest = Math.max(...first.size) - WIDTH;
  const scale = Math.min(longest > 0.02 ? (BOX - WIDTH) / longest : 1, 3);
  const middle = (centre) => (part, i) => 0.5 - centre[i] * part;
  const [x, y] = [scale, scale].map(middle(first.centre));
  paintDrawing(canvas, drawing, { scale, x, y });
  const again = measure(canvas);
  return again ? { scale, x: x + 0.5 - again.centre[0], y: y + 0.5 - again.centre[1] } : undefined;
}

/** A canvas with the picture that the model is given. A start without strokes has its place already. */
export function asLearnt(drawing, model, isCentred) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = resolution(model);
  const transform = isCentred && drawing.strokes.length ? centring(canvas, drawing) : undefined;
  paintDrawing(canvas, drawing, transform);
  return canvas;
}

/** Base64 of a canvas's opaque PNG. */
export const base64Of = (canvas) => canvas.toDataURL("image/png").split(",")[1];
