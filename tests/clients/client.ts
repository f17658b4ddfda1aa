// Calls a running server through the types of openapi.json, and fails at the first answer that is not as expected.
//
//     node client.js http://127.0.0.1:8000
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Problem = components["schemas"]["Problem"];

// What this program uses of node: its types are a package of their own.
declare const process: { argv: string[] };

const picture =
  "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAAAAACMmsGiAAAAFUlEQVR4nGNgYGBgYGD4/5+BiQEGABkPAgGDkPeCAAAAAElFTkSuQmCC";
const client = createClient<paths>({ baseUrl: process.argv[2] ?? "http://127.0.0.1:8000" });

function check(fact: boolean, what: string): asserts fact {
  if (!fact) throw new Error(what);
}

/** The data of an answer, which must be a success. */
function data<T>(answer: { data?: T; error?: Problem }): T {
  check(answer.data !== undefined, `unexpected problem: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** The fields of a body as a form. */
function form(body: Record<string, unknown>): FormData {
  const filled = new FormData();
  for (const [name, values] of Object.entries(body)) for (const value of values as Blob[]) filled.append(name, value);
  return filled;
}

async function isPng(blob: Blob): Promise<boolean> {
  return String.fromCharCode(...new Uint8Array(await blob.slice(1, 4).arrayBuffer())) === "PNG";
}

async function encode(): Promise<number[][]> {
  const encoded = data(await client.POST("/encode", { body: { images: [picture] } }));
  check(encoded.model === "mnist" && encoded.mean[0]?.length === 32, "encode");
  check(encoded.latents === undefined, "no draws unless asked for");
  check(encoded.mean.every((vector) => vector.every(Number.isFinite)), "means are numbers");
  return encoded.mean;
}

async function encodeFiles(): Promise<void> {
  // The document's type of a file is string; a form takes a Blob.
  const images = [1, 2].map(() => new Blob([bytes(picture)], { type: "image/png" }) as unknown as string);
  const query = { draw: true, seed: 7 };
  const encoded = data(
    await client.POST("/encode/files", { params: { query }, body: { images }, bodySerializer: form }),
  );
  check(encoded.mean.length === 2 && encoded.latents?.length === 2 && encoded.seed === 7, "encode files");
}

async function decode(latents: number[][]): Promise<void> {
  const decoded = data(await client.POST("/decode", { body: { latents } }));
  check(await isPng(new Blob([bytes(decoded.images[0] ?? "")])), "decode");
  const one = { query: { model: "mnist-2d", latent: [0.5, -1.2] } };
  const drawn = await client.GET("/decode/image", { params: one, parseAs: "blob" });
  check(await isPng(data(drawn) as unknown as Blob), "decode one image");
}

async function sample(): Promise<void> {
  const query = { n: 2, seed: 5 };
  const [first, again] = [await client.GET("/sample", { params: { query } }), await client.GET("/sample", { params: { query } })];
  check(JSON.stringify(data(first)) === JSON.stringify(data(again)), "the same seed gives the same bytes");
  const image = await client.GET("/sample/image", { params: { query }, parseAs: "blob" });
  check(await isPng(data(image) as unknown as Blob), "sample image");
  check(image.response.headers.get("x-seed") === "5", "the seed is in a header");
}

async function interpolate(): Promise<void> {
  const body = { points: [{ image: picture }, { label: 3 }], steps: 5 };
  const path = data(await client.POST("/interpolate", { body }));
  const method: "lerp" | "slerp" = path.method;
  check(path.images.length === 5 && path.latents.length === 5 && method === "lerp", "interpolate");
}

async function score(): Promise<void> {
  const params = { query: { k: 16, seed: 1 } };
  const scored = data(await client.POST("/score", { params, body: { images: [picture] } }));
  const [likelihood, elbo] = [scored.log_likelihood[0], scored.elbo[0]];
  check(likelihood !== undefined && elbo !== undefined && likelihood >= elbo, "score");
}

async function problem(): Promise<void> {
  const wrong = await client.POST("/encode", { body: { images: [picture, "AAAA"] } });
  const found: Problem | undefined = wrong.error;
  check(found !== undefined && found.status === 422, "a wrong picture is refused");
  check(found.type === "urn:vaeserve:problem:invalid-input" && found.errors?.[0]?.pointer === "/images/1", "by its place");
  const unknown = await client.GET("/sample", { params: { query: { model: "nope" } } });
  check(unknown.error?.title === "Unknown model or version", "an unknown model is refused");
}

await decode(await encode());
await encodeFiles();
await sample();
await interpolate();
await score();
await problem();
