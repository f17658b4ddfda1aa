/** Images as base64 text, as bitmaps and as files. */

/** The `data:` URL of a base64 PNG. */
export const address = (base64) => `data:image/png;base64,${base64}`;

/** The bitmap of a base64 PNG. */
export function bitmapOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/** The middle square of an image file, as a bitmap. */
export async function middleOf(file) {
  const whole = await createImageBitmap(file);
  const side = Math.min(whole.width, whole.height);
  return createImageBitmap(whole, (whole.width - side) / 2, (whole.height - side) / 2, side, side);
}

/** The red values of a bitmap, 0 to 255, row by row; grey is the same in all channels. */
export function greys(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
}

/** Save bytes under a file name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A file as a `data:` URL, for a JSON request. */
export function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result), onerror: () => reject(reader.error) });
    reader.readAsDataURL(file);
  });
}
