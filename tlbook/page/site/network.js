"use strict";
// The network that the page carries, run by ONNX Runtime. Everything is in this folder: nothing is fetched.

/** Start the network of MODEL and WEIGHTS; returns the function from an image to its numbers. */
async function startNetwork() {
  const module = new Blob([bytesOf(RUNTIME_MODULE)], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(module) }; // a page opened from a disk cannot import a file
  ort.env.wasm.wasmBinary = bytesOf(RUNTIME_WASM);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  const session = await ort.InferenceSession.create(bytesOf(WEIGHTS), { executionProviders: ["wasm"] });

  return async (image) => {
    const seen = FITS[MODEL.fit](image, MODEL.size, MODEL);
    const planes = new ort.Tensor("float32", planesOf(seen), [1, 3, seen.height, seen.width]);
    const answer = await session.run({ image: planes });
    return answer[MODEL.output].data.slice();
  };
}

/** RGBA pixels -> red, green, blue one after the other, 0 … 255; mean and deviation are taken out in the network. */
function planesOf({ data, width, height }) {
  const planes = new Float32Array(3 * width * height);
  const size = width * height;
  for (let i = 0; i < size; i++) for (let c = 0; c < 3; c++) planes[c * size + i] = data[4 * i + c];
  return planes;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
