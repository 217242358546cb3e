// ONNX Runtime Web, in exactly the version that the page was made for.

/**
 * Load the runtime. Its script is run only if it has the expected hash, and so is the WebAssembly that it runs.
 *
 * An import cannot be checked against a hash in all browsers. A fetch can, so both files are fetched.
 *
 * @param {{script: {url: string, integrity: string}, wasm: {url: string, integrity: string}}} runtime its two files.
 * @returns {Promise<object>} the runtime's module.
 */
export async function loadRuntime({ script, wasm }) {
  const [code, binary] = await Promise.all([script, wasm].map(checked));
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const ort = await import(url);
  URL.revokeObjectURL(url);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more threads need headers that a file host does not send
  ort.env.wasm.wasmBinary = binary;
  return ort;
}

async function checked({ url, integrity }) {
  const response = await fetch(url, { integrity, credentials: "omit", referrerPolicy: "no-referrer" });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response.arrayBuffer();
}
