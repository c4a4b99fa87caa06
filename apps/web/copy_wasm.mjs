// The runtime's WebAssembly beside the page: nothing is loaded from another host.
import { cpSync, mkdirSync } from "node:fs";

const from = new URL("./node_modules/@litertjs/core/wasm/", import.meta.url);
const to = new URL("./public/wasm/", import.meta.url);
mkdirSync(to, { recursive: true });
// One thread with SIMD, and the same without: what loadLiteRt(..., {threads: false}) picks from.
for (const name of ["litert_wasm_internal", "litert_wasm_compat_internal"]) {
  for (const end of ["js", "wasm"]) cpSync(new URL(`${name}.${end}`, from), new URL(`${name}.${end}`, to));
}
