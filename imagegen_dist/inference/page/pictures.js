// Samples on canvases, and pictures from files. A sample is [C, H, W], a video [C, T, H, W], a volume [C, D, H, W].

const frameSize = meta => meta.shape.slice(-2);

// One frame of a sample as RGBA, at an offset of `data`. phase: of a film or a turn, from 0 to 1.
function frameOf(meta, data, offset, phase) {
  const [channels] = meta.shape, [height, width] = frameSize(meta), plane = height * width;
  const out = new Uint8ClampedArray(plane * 4), depth = meta.shape.length > 3 ? meta.shape[1] : 1;
  const turned = meta.modality === "voxels" ? turn(meta, data, offset, phase) : null;
  const frame = Math.min(depth - 1, Math.floor(phase * depth)) * plane;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      const at = offset + (channels >= 3 ? c : 0) * depth * plane + frame + i;
      out[i * 4 + c] = turned ? turned[i] : Math.round((data[at] + 1) * 127.5);
    }
    out[i * 4 + 3] = 255;
  }
  return out;
}

// A volume turned about its vertical axis and seen from the side: the brightest voxel of each ray, dimmed by distance.
function turn(meta, data, offset, phase) {
  const [, depth, height, width] = meta.shape, out = new Uint8ClampedArray(height * width);
  const cos = Math.cos(2 * Math.PI * phase), sin = Math.sin(2 * Math.PI * phase), reach = Math.hypot(depth, width) / 2;
  for (let d = 0; d < depth; d++) for (let x = 0; x < width; x++) {
    const u = x - (width - 1) / 2, v = d - (depth - 1) / 2;
    const column = Math.round(cos * u + sin * v + (width - 1) / 2), light = 0.7 + (0.3 * (cos * v - sin * u)) / reach;
    if (column < 0 || column >= width) continue;
    for (let y = 0; y < height; y++) {
      const value = (data[offset + (d * height + y) * width + x] + 1) * 127.5 * light;
      if (value > out[y * width + column]) out[y * width + column] = value;
    }
  }
  return out;
}

// Draw samples in rows of `columns`.
function paint(canvas, meta, data, columns = 1, phase = 0) {
  const [height, width] = frameSize(meta), size = product(meta.shape), count = data.length / size;
  const rows = Math.ceil(count / columns), gap = count > 1 ? 1 : 0;
  canvas.width = columns * (width + gap) - gap;
  canvas.height = rows * (height + gap) - gap;
  const context = canvas.getContext("2d");
  for (let i = 0; i < count; i++) {
    const image = new ImageData(frameOf(meta, data, i * size, phase), width, height);
    context.putImageData(image, (i % columns) * (width + gap), Math.floor(i / columns) * (height + gap));
  }
}

const moves = meta => meta.modality !== "image";

// The pixels of a canvas as a sample, [C, H, W] in [-1, 1].
function samplesOf(canvas, meta) {
  const [channels] = meta.shape, { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data, plane = width * height;
  const out = new Float32Array(channels * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = rgba.subarray(i * 4, i * 4 + 3);
    if (channels === 1) out[i] = (0.299 * r + 0.587 * g + 0.114 * b) / 127.5 - 1;
    else for (let c = 0; c < 3; c++) out[c * plane + i] = rgba[i * 4 + c] / 127.5 - 1;
  }
  return out;
}

// Draw a picture file into a canvas: its central part, in steps of at most one half so that nothing is skipped.
async function drawFile(canvas, file) {
  let source = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name || "this file"} is no picture that this browser can read`);
  });
  const scale = Math.max(canvas.width / source.width, canvas.height / source.height);
  let [w, h] = [canvas.width / scale, canvas.height / scale];
  let [x, y] = [(source.width - w) / 2, (source.height - h) / 2];
  while (w > 2 * canvas.width) {
    const half = new OffscreenCanvas(Math.ceil(w / 2), Math.ceil(h / 2));
    half.getContext("2d").drawImage(source, x, y, w, h, 0, 0, half.width, half.height);
    [source, x, y, w, h] = [half, 0, 0, half.width, half.height];
  }
  canvas.getContext("2d").drawImage(source, x, y, w, h, 0, 0, canvas.width, canvas.height);
}
