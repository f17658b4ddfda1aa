// Draws faces. Each line of the standard input has one face's options as JSON, as choices.py writes them. Their pixels go
// to the standard output, face after face: RGB bytes, row by row.
//
//     node draw.mjs SIDE BACKGROUND < faces.jsonl > pixels

import { readFileSync, writeSync } from "node:fs";

import { createAvatar } from "@dicebear/core";
import * as toonHead from "@dicebear/toon-head";
import { Resvg } from "@resvg/resvg-js";

const [side, background] = [Number(process.argv[2]), process.argv[3]];

/** An option that may be absent: the style takes a list and a probability in percent. */
const optional = (name, value) => (value === "none" ? { [`${name}Probability`]: 0 } : { [name]: [value], [`${name}Probability`]: 100 });
const color = (hex) => [hex.slice(1)];

function svg(face) {
  return createAvatar(toonHead, {
    hair: [face.hair],
    ...optional("rearHair", face.rear_hair),
    clothes: [face.clothes],
    ...optional("beard", face.beard),
    eyes: [face.eyes],
    eyebrows: [face.brows],
    mouth: [face.mouth],
    hairColor: color(face.hair_color),
    skinColor: color(face.skin_color),
    clothesColor: color(face.clothes_color),
  }).toString();
}

function pixels(face) {
  const rgba = new Resvg(svg(face), { fitTo: { mode: "width", value: side }, background, font: { loadSystemFonts: false } }).render().pixels;
  return rgba.filter((_, index) => index % 4 !== 3); // opaque: the background is drawn below
}

function write(bytes) {
  for (let written = 0; written < bytes.length; ) written += writeSync(1, bytes, written);
}

for (const line of readFileSync(0, "utf8").split("\n")) {
  if (line) write(pixels(JSON.parse(line)));
}
