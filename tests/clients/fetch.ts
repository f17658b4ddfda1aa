// Calls a running server through openapi-generator's typescript-fetch, and fails at the first answer that is not as expected.
//
//     node fetch.js http://127.0.0.1:8000
import { Configuration, DecodeApi, EncodeApi, Fit, ProblemFromJSON, ResponseError, SampleApi } from "./fetch/index.js";

declare const process: { argv: string[] };

const configuration = new Configuration({ basePath: process.argv[2] ?? "http://127.0.0.1:8000" });
const [encoding, decoding, sampling] = [EncodeApi, DecodeApi, SampleApi].map((Api) => new Api(configuration)) as [EncodeApi, DecodeApi, SampleApi];

function check(fact: boolean, what: string): asserts fact {
  if (!fact) throw new Error(what);
}

async function start(blob: Blob): Promise<string> {
  return String.fromCharCode(...new Uint8Array(await blob.slice(1, 4).arrayBuffer()));
}

const picture = await sampling.sampleImage({ seed: 7 });
check((await start(picture)) === "PNG", "sample");
const text = btoa(String.fromCharCode(...new Uint8Array(await picture.arrayBuffer())));

const encoded = await encoding.encode({ picturesRequest: { images: [text] }, fit: Fit.Crop });
const first: number = (encoded.mean[0]?.[0] ?? NaN) + 1; // a list of lists of numbers, whatever the model
check(Number.isFinite(first) && encoded.mean[0]?.length === 32, "encode");

const images = ["a.png", "b.png"].map((name) => new File([picture], name));
const uploaded = await encoding.encodeFiles({ images });
check(JSON.stringify(uploaded.mean[1]) === JSON.stringify(uploaded.mean[0]), "upload");

const decoded = await decoding.decodeImage({ decodeRequest: { latents: encoded.mean }, scale: 4 });
check((await start(decoded)) === "PNG", "decode");

const array = await sampling.sampleNpy({ n: 2, seed: 1 });
check((await start(array)) === "NUM", "an npy array");
const arrays = await encoding.encodeNpy({ body: array });
check((await start(arrays)) === "K\u0003\u0004", "arrays of an npy array");

const wrong: unknown = await encoding.encode({ picturesRequest: { images: [text, "AAAA"] } }).catch((error) => error);
check(wrong instanceof ResponseError, "an error");
const problem = ProblemFromJSON(await wrong.response.json());
check(problem.status === 422 && problem.errors?.[0]?.pointer === "/images/1", "the error's place");
