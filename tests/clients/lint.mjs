// Prints what redocly's recommended rules find in an OpenAPI document, warnings included, a line each.
//
//     node lint.mjs openapi.json
import { createConfig, lint } from "@redocly/openapi-core";

const config = await createConfig({
  extends: ["recommended-strict"],
  rules: {
    // Those that take no input, such as /health/live, cannot be asked wrongly.
    "operation-4xx-response": "off",
  },
});
for (const { ruleId, message, location } of await lint({ ref: process.argv[2], config })) {
  console.log(`${ruleId}: ${message} (${location[0]?.pointer})`);
}
