/**
 * @module bench/line-plot
 *
 * A line plot as SVG: one x axis in powers of two, any number of lines.
 */

export interface Line {
  readonly label: string
  readonly points: readonly (readonly [x: number, y: number])[]
}

export interface Plot {
  readonly title: string
  readonly xLabel: string
  readonly yLabel: string
  readonly lines: readonly Line[]
  /** How an x value is written at its tick. */
  readonly tick: (x: number) => string
}

const WIDTH = 720
const HEIGHT = 420
const MARGIN = { left: 70, right: 170, top: 40, bottom: 55 }
const COLOURS = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e5ea2", "#b8860b"]

export function linePlot({ title, xLabel, yLabel, lines, tick }: Plot): string {
  const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b)
  const top = niceCeiling(Math.max(...lines.flatMap((line) => line.points.map(([, y]) => y))))
  const [low, high] = [Math.log2(xs[0] ?? 1), Math.log2(xs.at(-1) ?? 2)]
  const innerWidth = WIDTH - MARGIN.left - MARGIN.right
  const innerHeight = HEIGHT - MARGIN.top - MARGIN.bottom
  const atX = (x: number): number =>
    MARGIN.left + ((Math.log2(x) - low) / Math.max(1e-9, high - low)) * innerWidth
  const atY = (y: number): number => MARGIN.top + innerHeight - (y / top) * innerHeight
  const text = (x: number, y: number, content: string, more = ""): string =>
    `<text x="${round(x)}" y="${round(y)}" ${more}>${escapeXml(content)}</text>`
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    text(MARGIN.left, 22, title, 'font-size="15" font-weight="bold"'),
    text(MARGIN.left + innerWidth / 2, HEIGHT - 12, xLabel, 'text-anchor="middle"'),
    text(
      18,
      MARGIN.top + innerHeight / 2,
      yLabel,
      `text-anchor="middle" transform="rotate(-90 18 ${MARGIN.top + innerHeight / 2})"`,
    ),
  ]
  for (let step = 0; step <= 5; step += 1) {
    const y = (top * step) / 5
    parts.push(
      `<line x1="${MARGIN.left}" x2="${MARGIN.left + innerWidth}" y1="${round(atY(y))}" y2="${round(atY(y))}" stroke="#ddd"/>`,
      text(MARGIN.left - 8, atY(y) + 4, String(Number(y.toPrecision(3))), 'text-anchor="end"'),
    )
  }
  for (const x of xs) parts.push(text(atX(x), HEIGHT - MARGIN.bottom + 18, tick(x), 'text-anchor="middle"'))
  lines.forEach((line, index) => {
    const colour = COLOURS[index % COLOURS.length]
    const path = line.points.map(([x, y]) => `${round(atX(x))},${round(atY(y))}`).join(" ")
    parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`)
    for (const [x, y] of line.points)
      parts.push(`<circle cx="${round(atX(x))}" cy="${round(atY(y))}" r="3" fill="${colour}"/>`)
    parts.push(text(WIDTH - MARGIN.right + 12, MARGIN.top + 16 + index * 20, line.label, `fill="${colour}"`))
  })
  return `${[...parts, "</svg>"].join("\n")}\n`
}

function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)))
  return ([1, 2, 2.5, 5, 10].find((step) => step * power >= value) ?? 10) * power
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
}
