/**
 * @module scripts/close-doors
 *
 * Shuts, in a built executable, the ways by which the runtime lets its environment run foreign code. Without
 * this, `BUN_OPTIONS=--preload X mvm` runs X under the measured digest of mvm. Run: `bun close-doors.ts FILE`.
 *
 * Names: the first byte becomes NUL. No environment string can hold a NUL, so the name never matches again.
 * `BUN_JSC_*` (an option of that family replaces function bodies from a file) is compared byte by byte in machine
 * code: the second comparison is pointed at the first byte, so that byte would have to be both `B` and `U`.
 *
 * The file is written only if every door was found: a runtime that moved one must fail the build.
 */

/** Each stands for every longer name that starts with it. */
const NAMES = [
  "BUN_OPTIONS",
  "BUN_BE_BUN",
  "BUN_INSPECT",
  "BUN_TCC_OPTIONS",
  "BUN_RUNTIME_TRANSPILER_CACHE_PATH",
]
const JSC_PREFIX = "BUN_JSC_"

const file = process.argv[2]
if (file === undefined) throw new Error("usage: close-doors.ts FILE")
const bytes = Buffer.from(await Bun.file(file).arrayBuffer())
for (const name of NAMES) closeName(name)
closeJscPrefix()
await Bun.write(file, bytes)

/** Overwrites every place that holds `name`, but for JavaScript text (`process.env.NAME`), which must stay valid. */
function closeName(name: string): void {
  let closed = 0
  for (let at = bytes.indexOf(name); at >= 0; at = bytes.indexOf(name, at + 1)) {
    if (bytes[at - 1] === ".".charCodeAt(0)) continue
    bytes[at] = 0
    closed++
  }
  if (closed === 0) throw new Error(`${file}: ${name} is not in the runtime any more; review the doors`)
}

function closeJscPrefix(): void {
  const machine = bytes.readUInt16LE(18)
  const closed = machine === 62 ? closeJscOnX64() : machine === 183 ? closeJscOnArm64() : 0
  if (closed === 0)
    throw new Error(`${file}: the comparison with ${JSC_PREFIX} was not found; review the doors`)
}

/** `cmp byte [reg], 'B'; jne; cmp byte [reg+1], 'U'; jne; cmp byte [reg+2], 'N'`: changes the displacement 1 to 0. */
function closeJscOnX64(): number {
  const text = bytes.toString("latin1")
  const jne = "(?:\\x75[\\s\\S]|\\x0f\\x85[\\s\\S]{4})"
  const compare = (at: number): string =>
    `(?:\\x41)?\\x80[\\x78-\\x7f]${hex(at)}${hex(JSC_PREFIX.charCodeAt(at))}${jne}`
  const first = `(?:\\x41)?\\x80[\\x38-\\x3f]\\x24?${hex(JSC_PREFIX.charCodeAt(0))}${jne}`
  const rest = [2, 3, 4, 5, 6, 7].map(compare).join("")
  let closed = 0
  for (const found of text.matchAll(
    new RegExp(`(${first}(?:\\x41)?\\x80[\\x78-\\x7f])\\x01U${jne}${rest}`, "g"),
  )) {
    bytes[found.index + (found[1]?.length ?? 0)] = 0
    closed++
  }
  return closed
}

/** `ldrb w, [x, #1]; cmp w, #'U'; b.ne`, among the comparisons for the other letters: changes the offset 1 to 0. */
function closeJscOnArm64(): number {
  const LDRB_OFFSET_1 = 0x39400400
  let closed = 0
  for (let at = 0; at + 4 * 24 <= bytes.length; at += 4) {
    if ((bytes.readUInt32LE(at) & 0xfffffc00) >>> 0 !== LDRB_OFFSET_1) continue
    const letters: number[] = []
    for (let near = at; near < at + 4 * 24; near += 4) {
      const word = bytes.readUInt32LE(near)
      // cmp w, #imm12
      if ((word & 0xffc0001f) >>> 0 === 0x7100001f) letters.push((word >>> 10) & 0xfff)
    }
    if (String.fromCharCode(...letters).startsWith(JSC_PREFIX.slice(1))) {
      bytes.writeUInt32LE((bytes.readUInt32LE(at) & ~0x400) >>> 0, at)
      closed++
    }
  }
  return closed
}

function hex(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`
}

export {}
