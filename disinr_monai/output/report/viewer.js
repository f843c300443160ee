// Window and slice controls of the pictures. Everything is in the page; nothing is fetched.
"use strict";

// Black, red, yellow, white for 0 to 255: hot() in pixels.py.
const HOT = Array.from({ length: 256 }, (_, i) => [0, 1, 2].map((k) => Math.round(255 * Math.min(1, Math.max(0, (3 * i) / 255 - k)))));
const show = (value) => (value === 0 || (Math.abs(value) >= 1 && Math.abs(value) < 1e5) ? value.toFixed(Math.abs(value) < 10 ? 2 : 0) : value.toPrecision(3));

// The inverse of pack() in pixels.py: base64, zlib, low and high bytes of differences, 16-bit sums.
async function unpack(text, count) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const values = new Uint16Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) values[i] = sum = (sum + planes[i] + (planes[count + i] << 8)) & 65535;
  return values;
}

class Case {
  constructor(root) {
    this.root = root;
    const data = root.dataset;
    for (const name of ["low", "high", "level", "width"]) this[name] = Number(data[name]);
    this.shape = data.shape.split(",").map(Number); // slices, rows, columns
    this.extent = data.extent.split(",").map(Number); // mm
    this.start = [this.level, this.width];
    this.plane = 0;
    this.slices = this.shape.map((n) => Math.floor(n / 2));
    this.inputs = Object.fromEntries([...root.querySelectorAll("[data-control]")].map((e) => [e.dataset.control, e]));
  }

  async open() {
    const count = this.shape[0] * this.shape[1] * this.shape[2];
    this.panels = [];
    for (const figure of this.root.querySelectorAll("figure")) {
      const image = figure.querySelector("img");
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", image.alt);
      const values = figure.dataset.pixels ? await unpack(figure.dataset.pixels, count) : null;
      figure.removeAttribute("data-pixels");
      image.replaceWith(canvas);
      this.panels.push({ canvas, values, role: figure.dataset.role });
      canvas.addEventListener("mousemove", (event) => this.read(canvas, event));
    }
    this.reference = this.panels.find((p) => p.role === "reference")?.values;
    this.result = this.panels.find((p) => p.role === "result")?.values;
    this.root.querySelector(".controls").hidden = false;
    for (const [name, input] of Object.entries(this.inputs))
      input.addEventListener(name === "reset" ? "click" : "input", () => this.change(name));
    this.sync();
    this.draw();
    this.root.dataset.ready = "true";
  }

  change(name) {
    const value = this.inputs[name].value;
    if (name === "level" || name === "width") this[name] = Number(value);
    if (name === "preset" && value) [this.level, this.width] = value.split(",").map(Number);
    if (name === "slice") this.slices[this.plane] = Number(value);
    if (name === "plane") this.plane = Number(value);
    if (name === "reset") [this.level, this.width] = this.start;
    if (name !== "preset" && name !== "slice" && name !== "plane" && this.inputs.preset) this.inputs.preset.value = "";
    this.sync();
    this.draw();
  }

  sync() {
    const { slice, plane } = this.inputs;
    for (const name of ["level", "width"]) {
      this.inputs[name].value = this[name];
      this.root.querySelector(`[data-show=${name}]`).textContent = show(this[name]);
    }
    if (!plane) return;
    slice.max = this.shape[this.plane] - 1;
    slice.value = this.slices[this.plane];
    this.root.querySelector("[data-show=slice]").textContent = `${this.slices[this.plane] + 1} of ${this.shape[this.plane]}`;
  }

  // Rows and columns of the shown plane, and where a pixel lies in the stored values. Seen from the front and from the
  // side the last slice, the head, is up.
  view() {
    const [n, h, w] = this.shape;
    const at = this.slices[this.plane];
    if (this.plane === 1) return { rows: n, columns: w, size: [0, 2], at: (r, c) => ((n - 1 - r) * h + at) * w + c };
    if (this.plane === 2) return { rows: n, columns: h, size: [0, 1], at: (r, c) => ((n - 1 - r) * h + c) * w + at };
    return { rows: h, columns: w, size: [1, 2], at: (r, c) => (at * h + r) * w + c };
  }

  draw() {
    const { rows, columns, size, at } = this.view();
    const step = (this.high - this.low) / 4095;
    for (const { canvas, values, role } of this.panels) {
      [canvas.width, canvas.height] = [columns, rows];
      canvas.style.aspectRatio = `${this.extent[size[1]]} / ${this.extent[size[0]]}`;
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(columns, rows);
      for (let r = 0, p = 0; r < rows; r++)
        for (let c = 0; c < columns; c++, p += 4) {
          const i = at(r, c);
          if (role === "error") {
            const error = Math.abs(this.result[i] - this.reference[i]) * step;
            pixels.data.set(HOT[Math.round(Math.min(1, (5 * error) / this.width) * 255)], p);
          } else {
            const grey = 255 * ((this.low + values[i] * step - this.level) / this.width + 0.5);
            pixels.data[p] = pixels.data[p + 1] = pixels.data[p + 2] = grey; // the array clamps and rounds
          }
          pixels.data[p + 3] = 255;
        }
      context.putImageData(pixels, 0, 0);
    }
  }

  // The value under the pointer, in every panel.
  read(canvas, event) {
    const { rows, columns, at } = this.view();
    const box = canvas.getBoundingClientRect();
    const c = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
    const r = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
    const i = at(Math.max(0, r), Math.max(0, c));
    const value = (v) => show(this.low + (v[i] * (this.high - this.low)) / 4095);
    this.panels.filter((p) => p.values).forEach((p) => {
      p.canvas.parentElement.querySelector("[data-show=value]").textContent = `${value(p.values)} ${this.root.dataset.units}`;
    });
  }
}

document.getElementById("size")?.addEventListener("input", (event) => {
  document.documentElement.style.setProperty("--picture", `${event.target.value}px`);
});
if (typeof DecompressionStream === "undefined") {
  document.getElementById("old").hidden = false;
} else {
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting) {
        watcher.unobserve(target);
        new Case(target).open();
      }
  }, { rootMargin: "600px" });
  document.querySelectorAll("article[data-shape]").forEach((article) => watcher.observe(article));
}
