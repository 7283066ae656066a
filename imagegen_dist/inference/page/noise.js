// The noise of imagegen_dist/noise.py, bit for bit: Philox 4x32-10, then Box-Muller by series of + - * / and sqrt.

// The high 32 bits of a product of two 32-bit words.
function mulhi(a, b) {
  const low = (a & 0xffff) * (b & 0xffff), middle = (a >>> 16) * (b & 0xffff) + (low >>> 16);
  const rest = (a & 0xffff) * (b >>> 16) + (middle % 65536);
  return ((a >>> 16) * (b >>> 16) + Math.floor(middle / 65536) + Math.floor(rest / 65536)) >>> 0;
}

function philox(counter, key) {
  let [c0, c1, c2, c3] = counter, [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = mulhi(0xd2511f53, c0), low0 = Math.imul(0xd2511f53, c0) >>> 0;
    const high1 = mulhi(0xcd9e8d57, c2), low1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

// ln((word + 1/2) / 2^32): the exponent, and a series for a mantissa in [sqrt(1/2), sqrt(2)).
function logOfUniform(word) {
  let e = -Math.clz32(word), m = (word + 0.5) * 2 ** (-32 - e);
  if (m < Math.SQRT1_2) { m = m + m; e = e - 1; }
  const s = (m - 1) / (m + 1), t = s * s;
  let p = 1 / 19;
  for (let k = 17; k > 0; k -= 2) p = p * t + 1 / k;
  return e * Math.LN2 + 2 * s * p;
}

// The cosine and sine of 2π word / 2^32: a quarter turn q, and Taylor's series for what is left of the angle.
function cosSin(word) {
  const q = Math.floor((word + 2 ** 29) / 2 ** 30), x = (word - q * 2 ** 30) * 2 ** -30 * (Math.PI / 2), t = x * x;
  let c = 1, s = 1;
  for (let k = 15; k > 0; k -= 2) {
    c = 1 - t / (k * (k + 1)) * c;
    s = 1 - t / ((k + 1) * (k + 2)) * s;
  }
  s = x * s;
  return [[c, s], [-s, c], [-c, -s], [s, -c]][q % 4];
}

// The first `count` values of a stream of the noise of sample `index` of `seed` (both BigInt), in float32.
function normals(seed, index, count, stream = 0) {
  const halves = number => [Number(number & 0xffffffffn), Number(number >> 32n)];
  const values = new Float32Array(count);
  for (let at = 0; at < count; at += 2) {
    const words = philox([Math.floor(at / 4), stream, ...halves(index)], halves(seed)).slice(at % 4);
    const r = Math.sqrt(-2 * logOfUniform(words[0])), [c, s] = cosSin(words[1]);
    values[at] = r * c;
    if (at + 1 < count) values[at + 1] = r * s;
  }
  return values;
}
