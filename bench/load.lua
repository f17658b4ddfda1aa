-- wrk's requests from the environment; at the end one line of JSON.
local file = os.getenv("LOAD_BODY")
if file then
  wrk.method = "POST"
  wrk.body = io.open(file, "rb"):read("*a")
  wrk.headers["Content-Type"] = os.getenv("LOAD_TYPE")
end

function done(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
