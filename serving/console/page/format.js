// Amounts as text, in the words and digits that the command line and the reports use (serving/costs/figures.py).

export const DASH = "–";
export const ROLES = {
  same_model_hosted: "same model hosted", cheapest_proprietary: "cheapest proprietary", frontier: "frontier",
};

const grouped = (digits) => new Intl.NumberFormat("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const known = (value) => value !== null && value !== undefined;
const short = (value, digits = 3) => String(Number(value.toPrecision(digits)));

export function dollars(amount) {
  if (!known(amount)) return DASH;
  if (amount === 0) return "$0";
  const sign = amount < 0 ? "-" : "", size = Math.abs(amount);
  if (size >= 100) return `${sign}$${grouped(2).format(size)}`;
  const exponent = Number(size.toExponential(6).split("e")[1]);
  return `${sign}$${size.toFixed(Math.min(20, Math.max(2, 2 - exponent)))}`;
}

export const nano = (amount) => dollars(known(amount) ? amount / 1e9 : amount);

export function seconds(value) {
  if (!known(value)) return DASH;
  for (const [limit, factor, unit] of [[1e-3, 1e6, "µs"], [1, 1e3, "ms"], [120, 1, "s"], [7200, 1 / 60, "min"]]) {
    if (value < limit) return `${short(value * factor)} ${unit}`;
  }
  return `${short(value / 3600)} h`;
}

export function percent(share) {
  if (!known(share)) return DASH;
  if (share === 0) return "0%";
  const size = Math.abs(share * 100);
  if (size < 1e-4) return "<0.0001%";
  if (size < 1) return `${short(share * 100, 2)}%`;
  return `${grouped(size < 100 ? 1 : 0).format(share * 100)}%`;
}

// A share near 1 with as many digits as tell it from 1.
export function attained(share) {
  if (!known(share) || share >= 1 || share < 0.9) return percent(share);
  const digits = Math.min(7, Math.max(1, -Math.floor(Math.log10(100 * (1 - share)))));
  return `${String(Number((100 * share).toFixed(digits)))}%`;
}

export function verdict(saving) {
  if (!known(saving)) return DASH;
  if (saving >= 0) return `${grouped(saving < 0.995 ? 0 : 1).format(saving * 100)}% cheaper`;
  const times = 1 - saving;
  if (times < 2) return `${grouped(0).format(-saving * 100)}% dearer`;
  return `${grouped(times < 100 ? 1 : 0).format(times)}× the price`;
}

export const count = (value) => (known(value) ? grouped(0).format(value) : DASH);
export const rate = (value) => (known(value) ? grouped(value < 10 ? 1 : 0).format(value) : DASH);

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString([], {hour12: false});
}

export function ago(unix, now) {
  const past = Math.max(0, now - unix);
  if (past < 90) return `${Math.round(past)} s ago`;
  return past < 5400 ? `${Math.round(past / 60)} min ago` : `${Math.round(past / 3600)} h ago`;
}

// A count or mean: whole above 100, three digits below.
export function quantity(value) {
  return value >= 100 || Number.isInteger(value) ? grouped(0).format(value) : short(value);
}
