// A zip of files that are compressed already: stored, with CRC-32.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// files: [name, bytes] pairs.
function zip(files) {
  const parts = [], entries = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const encoded = new TextEncoder().encode(name), common = new DataView(new ArrayBuffer(26));
    [[0, 20], [2, 0x800]].forEach(([at, value]) => common.setUint16(at, value, true));
    common.setUint16(8, 0x5c21, true); // the date: 2026-01-01
    [[10, crc32(bytes)], [14, bytes.length], [18, bytes.length]].forEach(([at, value]) => common.setUint32(at, value, true));
    common.setUint16(22, encoded.length, true);
    const local = [Uint8Array.of(0x50, 0x4b, 3, 4), new Uint8Array(common.buffer), encoded, bytes];
    const tail = new DataView(new ArrayBuffer(14));
    tail.setUint32(10, offset, true);
    entries.push(Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), new Uint8Array(common.buffer), new Uint8Array(tail.buffer), encoded);
    parts.push(...local);
    offset += local.reduce((sum, part) => sum + part.length, 0);
  }
  const size = entries.reduce((sum, part) => sum + part.length, 0), end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  [[8, files.length], [10, files.length]].forEach(([at, value]) => end.setUint16(at, value, true));
  [[12, size], [16, offset]].forEach(([at, value]) => end.setUint32(at, value, true));
  return new Blob([...parts, ...entries, new Uint8Array(end.buffer)], { type: "application/zip" });
}
