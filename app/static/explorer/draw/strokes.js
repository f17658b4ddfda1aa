/** Strokes as an image like the training images: on their background, as wide as MNIST's, digits centered as in MNIST. */

const MNIST_SIZE = 28; // pixels of an MNIST image; its digits fill a box of 20
const BOX = 20 / MNIST_SIZE;
const WIDTH = 2.6 / MNIST_SIZE; // of a stroke
const SCALE = 10; // pixels of the drawing per pixel of the model

export const resolution = ({ width, height }) => [width * SCALE, height * SCALE];

/** Draw smooth strokes, each with a `color` and `points` [x, y] in [0, 1]. The transform {scale, x, y} moves the points and
 * keeps the width of the strokes. */
function stroke(context, strokes, width, height, { scale, x, y }) {
  context.lineWidth = WIDTH * Math.min(width, height);
  context.lineCap = context.lineJoin = "round";
  const at = ([left, top]) => [(left * scale + x) * width, (top * scale + y) * height];
  for (const { color, points: line } of strokes) {
    const points = line.map(at);
    context.strokeStyle = color;
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

/** Draw `{paper, strokes, start}` on the whole canvas; `start` is the bitmap under the strokes, or null. */
export function paintDrawing(canvas, { paper, strokes, start }, transform = { scale: 1, x: 0, y: 0 }) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { scale, x, y } = transform;
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  if (start) context.drawImage(start, x * width, y * height, scale * width, scale * height);
  stroke(context, strokes, width, height, transform);
}

/** Size of the bounding box and center of mass of the ink on a canvas, in [0, 1]; null without ink. */
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
  return { size: [(right - left) / width, (bottom - top) / height], center: [across / mass / width, down / mass / height] };
}

/** The transform that scales the ink to MNIST's box and moves its center of mass to the middle, as MNIST was made. */
function centering(canvas, drawing) {
  paintDrawing(canvas, drawing);
  const first = measure(canvas);
  if (!first) return undefined;
  const longest = Math.max(...first.size) - WIDTH;
  const scale = Math.min(longest > 0.02 ? (BOX - WIDTH) / longest : 1, 3);
  const middle = (center) => (part, i) => 0.5 - center[i] * part;
  const [x, y] = [scale, scale].map(middle(first.center));
  paintDrawing(canvas, drawing, { scale, x, y });
  const again = measure(canvas);
  return again ? { scale, x: x + 0.5 - again.center[0], y: y + 0.5 - again.center[1] } : undefined;
}

/** A canvas with the image for the model. A `start` without strokes is not centered: it comes from the model or a file. */
export function preprocess(drawing, model, isCenterd) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = resolution(model);
  const transform = isCenterd && drawing.strokes.length ? centering(canvas, drawing) : undefined;
  paintDrawing(canvas, drawing, transform);
  return canvas;
}

/** Base64 of a canvas's opaque PNG. */
export const base64Of = (canvas) => canvas.toDataURL("image/png").split(",")[1];
