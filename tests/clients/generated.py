"""Calls a running server through openapi-generator's Python client; fails at the first answer that is not as expected.

python generated.py http://127.0.0.1:8000
"""

import base64
import sys

from vaeserve_generated import ApiClient, Configuration, DecodeApi, EncodeApi, SampleApi
from vaeserve_generated.exceptions import UnprocessableEntityException
from vaeserve_generated.models import DecodeRequest, EncodeResponse, Fit, PicturesRequest

client = ApiClient(Configuration(host=sys.argv[1]))
encoding, decoding, sampling = EncodeApi(client), DecodeApi(client), SampleApi(client)

picture = bytes(sampling.sample_image(seed=7))
assert picture[1:4] == b"PNG"
text = base64.b64encode(picture).decode()

encoded = encoding.encode(PicturesRequest(images=[text]), fit=Fit.CROP)
assert isinstance(encoded, EncodeResponse)
assert (len(encoded.mean), len(encoded.mean[0])) == (1, 32)
assert encoded.mean[0][0] + 1 > 0  # a list of lists of numbers, whatever the model

uploaded = encoding.encode_files([("a.png", picture), ("b.png", picture)])
assert uploaded.mean[0] == uploaded.mean[1]

drawn = decoding.decode_image(DecodeRequest(latents=encoded.mean), scale=4)
assert bytes(drawn)[1:4] == b"PNG"

array = bytes(sampling.sample_npy(n=2, seed=1))
assert array[1:6] == b"NUMPY"
assert bytes(encoding.encode_npy(array))[:2] == b"PK"

try:
    encoding.encode(PicturesRequest(images=[text, "AAAA"]))
    raise SystemExit("a wrong image is accepted")
except UnprocessableEntityException as error:
    problem = error.data
assert (problem.status, problem.errors[0].pointer) == (422, "/images/1")
