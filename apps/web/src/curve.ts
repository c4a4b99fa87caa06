// The live curve: medians over time as one line, and the same in words for who cannot see it.
import type { Point } from "./measurement";

const WIDTH = 320;
const HEIGHT = 80;

export class Curve {
  private points: Point[] = [];

  constructor(
    private readonly figure: HTMLElement,
    private readonly image: SVGSVGElement,
    private readonly caption: HTMLElement,
  ) {}

  clear(): void {
    this.points = [];
    this.figure.hidden = true;
  }

  add(point: Point): void {
    this.points.push(point);
    const first = this.points[0]!;
    const spanS = Math.max(point.startS - first.startS, 1e-9);
    const mostMs = Math.max(...this.points.map((each) => each.medianMs), 1e-9);
    const line = this.points.map(({ startS, medianMs }) => {
      const x = ((startS - first.startS) / spanS) * WIDTH;
      const y = HEIGHT - (medianMs / mostMs) * (HEIGHT - 4);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    this.image.querySelector("polyline")!.setAttribute("points", line.join(" "));
    const text =
      `Median inference: ${first.medianMs.toFixed(3)} ms at first, ${point.medianMs.toFixed(3)} ms after ` +
      `${spanS.toFixed(0)} s, ${mostMs.toFixed(3)} ms at most`;
    this.image.setAttribute("aria-label", text);
    this.caption.textContent = text;
    this.figure.hidden = false;
  }
}
