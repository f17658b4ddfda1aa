// Every address is relative, so that the page works behind a path prefix. Nothing is sent to a validator elsewhere.
import { makeSend } from "./explorer/page/http.js";
import { makeKey } from "./explorer/page/key.js";

const key = makeKey(document.querySelector("#key"));
const send = makeSend(key, { wait: (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds)) });

/** The key that was given for this page or the explorer goes along, unless another was given by "Authorize". */
function withKey(request) {
  if (key.value && !request.headers.Authorization) request.headers.Authorization = `Bearer ${key.value}`;
  return request;
}

send({ path: "openapi.json" })
  .then((answer) => answer.json())
  .then((spec) =>
    SwaggerUIBundle({
      spec,
      dom_id: "#swagger-ui",
      deepLinking: true,
      tryItOutEnabled: true,
      displayOperationId: true,
      validatorUrl: null,
      requestInterceptor: withKey,
    }),
  )
  .catch((problem) => {
    document.querySelector("#swagger-ui").textContent = problem.message;
  });
