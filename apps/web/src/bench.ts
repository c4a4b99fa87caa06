// Without hands: "#bench=wasm&sustained=60&device=NAME&send" in the address measures at once. With "send" the result goes
// to the server that the page came from, as `edgesdk profile --on browser` asks for.
import { DEVICE } from "./constants";
import type { Order } from "./measurement";

export interface Bench extends Order {
  readonly isSent: boolean;
}

export function readBench(hash: string): Bench | undefined {
  const asked = new URLSearchParams(hash.slice(1));
  const accelerator = asked.get("bench");
  if (accelerator !== "wasm" && accelerator !== "webgpu") return undefined;
  return {
    accelerator,
    device: asked.get("device") ?? DEVICE,
    sustainedS: Number(asked.get("sustained") ?? 0),
    isSent: asked.has("send"),
  };
}

// Posts JSON beside the page; the server's own words are the error where it refuses.
export async function send(name: "measurement" | "progress" | "failure", content: object): Promise<void> {
  const response = await fetch(new URL(name, document.baseURI), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  });
  if (!response.ok) throw new Error(`the ${name} was refused (${response.status}): ${await response.text()}`);
}
