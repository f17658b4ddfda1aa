// Calls a running server through the client of @hey-api/openapi-ts, and fails at the first answer that is not as expected.
//
//     node hey.js http://127.0.0.1:8000
import { client } from "./hey/client.gen.js";
import { decodeImage, encode, encodeFiles, encodeNpy, sampleImage, sampleNpy } from "./hey/sdk.gen.js";
import type { Fit, Problem } from "./hey/types.gen.js";

declare const process: { argv: string[] };

client.setConfig({ baseUrl: process.argv[2] ?? "http://127.0.0.1:8000" });

function check(fact: boolean, what: string): asserts fact {
  if (!fact) throw new Error(what);
}

/** The data of an answer, which must be a success. */
function data<T>(answer: { data?: T; error?: unknown }): T {
  check(answer.data !== undefined, `unexpected problem: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

async function start(blob: Blob): Promise<string> {
  return String.fromCharCode(...new Uint8Array(await blob.slice(1, 4).arrayBuffer()));
}

const picture = data(await sampleImage({ query: { seed: 7 } }));
check((await start(picture)) === "PNG", "sample");
const text = btoa(String.fromCharCode(...new Uint8Array(await picture.arrayBuffer())));

const fit: Fit = "crop";
const encoded = data(await encode({ query: { fit }, body: { images: [text] } }));
const first: number = (encoded.mean[0]?.[0] ?? NaN) + 1; // a list of lists of numbers, whatever the model
check(Number.isFinite(first) && encoded.mean[0]?.length === 32, "encode");

const uploaded = data(await encodeFiles({ body: { images: [picture, picture] } }));
check(JSON.stringify(uploaded.mean[1]) === JSON.stringify(uploaded.mean[0]), "upload");

const decoded = data(await decodeImage({ query: { scale: 4 }, body: { latents: encoded.mean } }));
check((await start(decoded)) === "PNG", "decode");

const array = data(await sampleNpy({ query: { n: 2, seed: 1 } }));
check((await start(array)) === "NUM", "an npy array");
const arrays = data(await encodeNpy({ body: array, bodySerializer: null }));
check((await start(arrays)) === "K\u0003\u0004", "arrays of an npy array");

const wrong = await encode({ body: { images: [text, "AAAA"] } });
const problem: Problem | undefined = wrong.error;
check(problem?.status === 422 && problem.errors?.[0]?.pointer === "/images/1", "an error");
