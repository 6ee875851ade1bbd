"use strict";
// Picture files: decoded, resized and cropped as tlbook and Pillow do it, to the last bit.

const FIXED_POINT = 22; // bits after the point of Pillow's weights

/** The pixels {data: RGBA, width, height} of a file, upright by its EXIF data, on white; an Error that says why not. */
async function decode(file) {
  const why = await whyNot(file);
  if (why) throw new Error(why);
  let bitmap;
  try {
    const plain = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(file, plain);
  } catch {
    throw new Error("is not readable as an image");
  }
  const pixels = pixelsOf(bitmap);
  bitmap.close();
  return pixels;
}

/** The pixels of anything that can be drawn: a bitmap, a frame of a video. */
function pixelsOf(source, width = source.width, height = source.height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  return { data: context.getImageData(0, 0, width, height).data, width, height };
}

/** Why a browser cannot be trusted with a file, or null. */
async function whyNot(file) {
  const head = new Uint8Array(await file.slice(0, 32).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (!head.length) return "is empty";
  if (/^(II\*\0|MM\0\*)/.test(text)) return "is a TIFF image, which browsers do not read: convert it to PNG";
  if (/^....ftyp(he|mi|ms)/s.test(text)) return "is a HEIC image, which most browsers do not read: convert it to JPEG";
  if (text.startsWith("\x89PNG") && head[24] === 16) {
    return "is a PNG of 16 bits a channel, of which browsers keep the upper 8: convert it to 8 bits";
  }
  return null;
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {
  // [how far it reaches, its weight at a distance]
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, (x) => bicubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function bicubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/** For each of ``size`` pixels that show ``from`` … ``to`` of a side: where its inputs begin, and their whole weights. */
function weightsOf(side, from, to, size, filter) {
  const scale = Math.fround(to - from) / size;
  const [reach, weight] = FILTERS[filter];
  const stretch = Math.max(scale, 1); // when an image shrinks, each pixel is a mean over all that it covers
  return range(size).map((i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const last = Math.min(side, Math.trunc(centre + reach * stretch + 0.5));
    const values = range(last - first).map((k) => weight((first + k - centre + 0.5) / stretch));
    const sum = values.reduce((a, b) => a + b, 0);
    return { first, weights: values.map((w) => Math.trunc((w / sum) * 2 ** FIXED_POINT + (w / sum < 0 ? -0.5 : 0.5))) };
  });
}

/** Resize the box [left, top, right, bottom] of an image to width × height: {data, width, height} of the same channels.
 *  As Pillow does: along the rows and then along the columns, each rounded to whole numbers; since version 13 along the
 *  columns first where that makes the image much smaller. */
function resize(image, width, height, filter, box = [0, 0, image.width, image.height]) {
  const across = weightsOf(image.width, box[0], box[2], width, filter);
  const down = weightsOf(image.height, box[1], box[3], height, filter);
  const columnsFirst = height < image.height && image.height - height > 2 * (image.width - width);
  if (columnsFirst) return alongRows(alongColumns(image, down), across);
  return alongColumns(alongRows(image, across), down);
}

function alongRows(image, across) {
  const [source, channels, width] = [image.data, channelsOf(image), across.length];
  const data = new Uint8ClampedArray(image.height * width * channels);
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < width; x++) {
      const { first, weights } = across[x];
      for (let c = 0; c < channels; c++) {
        let sum = 2 ** (FIXED_POINT - 1);
        let at = (y * image.width + first) * channels + c;
        for (let k = 0; k < weights.length; k++, at += channels) sum += source[at] * weights[k];
        data[(y * width + x) * channels + c] = sum >> FIXED_POINT;
      }
    }
  }
  return { data, width, height: image.height };
}

function alongColumns(image, down) {
  const [source, stride, height] = [image.data, image.width * channelsOf(image), down.length];
  const data = new Uint8ClampedArray(height * stride);
  for (let y = 0; y < height; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < stride; x++) {
      let sum = 2 ** (FIXED_POINT - 1);
      let at = first * stride + x;
      for (let k = 0; k < weights.length; k++, at += stride) sum += source[at] * weights[k];
      data[y * stride + x] = sum >> FIXED_POINT;
    }
  }
  return { data, width: image.width, height };
}

const channelsOf = (image) => image.data.length / (image.width * image.height);

/** How an image comes to [height, width]: tlbook.backbones.FITS. */
const FITS = {
  crop: (image, size, { crop, interpolation }) => resizeAndCrop(image, size, crop, interpolation),
  squeeze: (image, [height, width], { interpolation }) => resize(image, width, height, interpolation),
  pad: (image, size, { mean, interpolation }) => pad(image, size, interpolation, mean),
};

/** The whole image, as large as [height, width] allows, in the middle of a frame of one colour. */
function pad(image, [height, width], filter, colour) {
  const scale = Math.min(height / image.height, width / image.width);
  const sides = [image.width, image.height].map((side) => Math.max(1, halfToEven(side * scale)));
  const whole = resize(image, ...sides, filter);
  const [left, top] = [Math.floor((width - whole.width) / 2), Math.floor((height - whole.height) / 2)];
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < data.length; i++) data[i] = i % 4 < 3 ? halfToEven(255 * colour[i % 4]) : 255;
  for (let y = 0; y < whole.height; y++) {
    const row = whole.data.subarray(y * whole.width * 4, (y + 1) * whole.width * 4);
    data.set(row, ((top + y) * width + left) * 4);
  }
  return { data, width, height };
}

const halfToEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // as Python rounds

/** Resize until ``size`` [height, width] / crop is covered, and take the middle: as Backbone.as_tensor does. */
function resizeAndCrop(image, [height, width], crop, filter) {
  const [coverH, coverW] = [Math.trunc(height / crop), Math.trunc(width / crop)];
  const { width: w, height: h } = image;
  const tall = coverH * w >= coverW * h;
  const wholeH = tall ? coverH : Math.floor((coverW * h) / w);
  const wholeW = tall ? Math.floor((coverH * w) / h) : coverW;
  const [top, left] = [halfToEven((wholeH - height) / 2), halfToEven((wholeW - width) / 2)];
  if (wholeH * wholeW <= 16 * height * width) {
    return cut(resize(image, wholeW, wholeH, filter), left, top, width, height);
  }
  const [across, down] = [w / wholeW, h / wholeH];
  const [right, bottom] = [Math.min((left + width) * across, w), Math.min((top + height) * down, h)];
  const box = [left * across, top * down, right, bottom].map(Math.fround); // Pillow keeps it in single precision
  return resize(image, width, height, filter, box);
}

/** A part of an image; what lies outside is black. */
function cut(image, left, top, width, height) {
  const channels = channelsOf(image);
  const data = new Uint8ClampedArray(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [fromX, fromY] = [left + x, top + y];
      if (fromX < 0 || fromY < 0 || fromX >= image.width || fromY >= image.height) continue;
      for (let c = 0; c < channels; c++) {
        data[(y * width + x) * channels + c] = image.data[(fromY * image.width + fromX) * channels + c];
      }
    }
  }
  return { data, width, height };
}

/** 16 × 16 grey values, less their mean and of length 1: their inner product is the correlation of two pictures. */
function thumbprint({ data, width, height }) {
  const grey = new Uint8ClampedArray(width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = (19595 * data[4 * i] + 38470 * data[4 * i + 1] + 7471 * data[4 * i + 2] + 0x8000) >> 16;
  }
  const small = Array.from(resize({ data: grey, width, height }, 16, 16, "bicubic").data);
  const mean = small.reduce((a, b) => a + b) / small.length;
  const apart = small.map((value) => value - mean);
  const length = Math.sqrt(dot(apart, apart)) || 1; // an image of one colour resembles none
  return apart.map((value) => value / length);
}
