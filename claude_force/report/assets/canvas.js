// Draws on a canvas: time goes across, an amount upwards, and colours are those of page.css.
const LEFT = 58, RIGHT = 4;
const STEPS_MS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[SECOND, MINUTE].flatMap((unit) => [1, 2, 5, 10, 15, 30].map((count) => count * unit)),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR),
  ...[1, 2, 7, 14, 28, 91, 182, 364].map((count) => count * DAY),
];
const ROOM_FOR_TIME = 92;

class Canvas {
  // `view` is the span of time that the canvas shows, in milliseconds.
  constructor(node, view) {
    const { width, height } = node.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    node.width = Math.round(width * ratio);
    node.height = Math.round(height * ratio);
    Object.assign(this, { view, width, height, above: 8, below: 24, on: node.getContext("2d") });
    const style = getComputedStyle(node);
    this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.on.scale(ratio, ratio);
    this.on.font = `12px ${style.fontFamily}`;
  }

  get room() { return this.height - this.above - this.below; }
  get across() { return Math.max(1, this.width - LEFT - RIGHT); }
  get columns() { return Math.floor(this.across); }

  x(at) {
    const { from, to } = this.view;
    return LEFT + Math.min(1, Math.max(0, (at - from) / (to - from))) * this.across;
  }

  y(amount, ceiling) { return this.above + this.room * (1 - amount / ceiling); }

  text(text, x, y, align) {
    this.on.fillStyle = this.colour("quiet");
    this.on.textAlign = align;
    this.on.fillText(text, x, y);
  }

  line(x1, y1, x2, y2, colour) {
    this.on.strokeStyle = this.colour(colour);
    this.on.lineWidth = 1;
    this.on.beginPath();
    this.on.moveTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
    this.on.lineTo(Math.round(x2) + 0.5, Math.round(y2) + 0.5);
    this.on.stroke();
  }

  // The view counts from `origin`, in Unix milliseconds.
  timeAxis(origin) {
    const { from, to } = this.view, max = Math.max(1, this.across / ROOM_FOR_TIME);
    const step = STEPS_MS.find((step) => (to - from) / step <= max) ?? STEPS_MS[STEPS_MS.length - 1] * Math.ceil((to - from) / max / STEPS_MS[STEPS_MS.length - 1]);
    const base = this.height - this.below, shift = origin + OFFSET_MS;
    this.line(LEFT, base, this.width - RIGHT, base, "strong");
    for (let at = Math.ceil((from + shift) / step) * step - shift; at <= to; at += step) {
      const x = this.x(at), unix = origin + at;
      this.line(x, base, x, base + 4, "strong");
      const label = step >= DAY ? clock(unix, DAY, true).slice(0, 10) : to - from > DAY ? clock(unix, MINUTE, true).slice(5) : clock(unix, step);
      if (x > LEFT + 20 && x < this.width - 30) this.text(label, x, base + 18, "center");
    }
  }

  // Returns the amount at the top: the first round one that is at least `max`.
  amountAxis(max) {
    const power = 10 ** Math.floor(Math.log10(max / 3));
    const step = Math.max(1, [1, 2, 5, 10, 20].map((factor) => factor * power).find((step) => max / step <= 3.001));
    const ceiling = Math.ceil(max / step - 1e-9) * step;
    for (let amount = 0; amount <= ceiling; amount += step) {
      const y = this.y(amount, ceiling);
      if (amount) this.line(LEFT, y, this.width - RIGHT, y, "line");
      this.text(number(amount), LEFT - 8, y + 4, "right");
    }
    return ceiling;
  }

  // Failures are hatched too, for readers who can't tell the colours apart.
  fill(state) {
    if (state !== "fail") return this.colour(state);
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const on = tile.getContext("2d");
    on.fillStyle = this.colour("fail");
    on.fillRect(0, 0, 6, 6);
    on.strokeStyle = this.colour("page");
    on.lineWidth = 1.4;
    on.beginPath();
    for (const start of [-6, 0, 6]) {
      on.moveTo(start - 1, 7);
      on.lineTo(start + 7, -1);
    }
    on.stroke();
    return (this.hatch ??= this.on.createPattern(tile, "repeat"));
  }

  bar(state, x, y, width, height) {
    this.on.fillStyle = width < 8 ? this.colour(state) : this.fill(state);
    this.on.fillRect(x, y, width, height);
  }

  dashes(x, y, width) {
    this.on.strokeStyle = this.colour("retry");
    this.on.lineWidth = 2;
    this.on.setLineDash([4, 3]);
    this.on.beginPath();
    this.on.moveTo(x, y);
    this.on.lineTo(x + width, y);
    this.on.stroke();
    this.on.setLineDash([]);
  }

  cross(x, y, size) {
    this.on.strokeStyle = this.colour("fail");
    this.on.lineWidth = 2;
    this.on.beginPath();
    this.on.moveTo(x - size, y - size);
    this.on.lineTo(x + size, y + size);
    this.on.moveTo(x + size, y - size);
    this.on.lineTo(x - size, y + size);
    this.on.stroke();
  }

  ring(x, y, radius) {
    this.on.fillStyle = this.colour("page");
    this.on.strokeStyle = this.colour("cache");
    this.on.lineWidth = 2;
    this.on.beginPath();
    this.on.arc(x, y, radius, 0, 2 * Math.PI);
    this.on.fill();
    this.on.stroke();
  }

  diamond(x, y) {
    this.on.fillStyle = this.colour("cache");
    this.on.beginPath();
    for (const [right, down] of [[0, -5], [5, 0], [0, 5], [-5, 0]]) this.on.lineTo(x + right, y + down);
    this.on.fill();
  }

  // An area with an amount for each column, on top of `base`.
  area(state, amounts, base, ceiling) {
    this.on.fillStyle = this.fill(state);
    this.on.beginPath();
    this.on.moveTo(LEFT, this.y(base[0], ceiling));
    for (let column = 0; column < amounts.length; column++) {
      const y = this.y(base[column] + amounts[column], ceiling);
      this.on.lineTo(LEFT + column, y);
      this.on.lineTo(LEFT + column + 1, y);
    }
    for (let column = amounts.length - 1; column >= 0; column--) {
      const y = this.y(base[column], ceiling);
      this.on.lineTo(LEFT + column + 1, y);
      this.on.lineTo(LEFT + column, y);
    }
    this.on.fill();
  }

  // A line from column to column, interrupted where the amount is 0.
  steps(amounts, ceiling) {
    this.on.strokeStyle = this.colour("ink");
    this.on.lineWidth = 1.75;
    this.on.setLineDash([6, 3]);
    this.on.beginPath();
    for (let column = 0, drawn = false; column < amounts.length; column++) {
      const y = this.y(Math.min(amounts[column], ceiling), ceiling);
      if (!amounts[column]) drawn = false;
      else {
        if (!drawn) this.on.moveTo(LEFT + column, y);
        this.on.lineTo(LEFT + column, y);
        this.on.lineTo(LEFT + column + 1, y);
        drawn = true;
      }
    }
    this.on.stroke();
    this.on.setLineDash([]);
  }

  // Dims everything outside of `left` to `right`.
  frame(left, right) {
    this.on.globalAlpha = 0.72;
    this.on.fillStyle = this.colour("page");
    this.on.fillRect(LEFT, 0, left - LEFT, this.height);
    this.on.fillRect(right, 0, this.width - right, this.height);
    this.on.globalAlpha = 1;
    this.on.strokeStyle = this.colour("focus");
    this.on.lineWidth = 2;
    this.on.strokeRect(left, 1, Math.max(2, right - left), this.height - 2);
  }
}
