// The patchers that are rules, as patchers/rules.py has them: bytes (Uint8Array) in, a start or not for each byte out.
// tests/test_report_cuts.py holds the two against each other.

const isAlnum = (b) => (b >= 48 && b <= 57) || (b >= 65 && b <= 90) || (b >= 97 && b <= 122);
const isContinuation = (b) => b >= 0x80 && b < 0xc0;
const isSpacelike = (b) => !isAlnum(b) && !isContinuation(b);
const isWhite = (b) => b === 32 || (b >= 9 && b <= 13);
const following = (b) => (b >= 0xf8 ? 0 : (b >= 0xc0) + (b >= 0xe0) + (b >= 0xf0));

// A start wherever a run of such bytes has begun one byte before.
function afterFirst(data, is) {
  return Array.from(data, (_, t) => t === 0 || (is(data[t - 1]) && !(t > 1 && is(data[t - 2]))));
}

// floor(t / stride) changes, in whole numbers: 4.5 is 45 / 10.
function strideStarts(data, stride) {
  const [whole, decimals = ""] = String(stride).split(".");
  const numerator = Number(whole + decimals), denominator = 10 ** decimals.length;
  const starts = new Array(data.length).fill(false);
  for (let step = 0, place = 0; place < data.length; step++, place = Math.ceil((step * numerator) / denominator))
    starts[place] = true;
  return starts;
}

function codepointStarts(data) {
  const open = Array.from(data, (b, t) =>
    following(b) > 0 ||
    (isContinuation(b) && t > 0 && following(data[t - 1]) > 1) ||
    (isContinuation(b) && t > 1 && isContinuation(data[t - 1]) && following(data[t - 2]) > 2));
  return Array.from(data, (_, t) => t === 0 || !open[t - 1]);
}

const CUTS = {
  whitespace: (data) => afterFirst(data, isSpacelike),
  words: (data) => afterFirst(data, isWhite),
  space_words: (data) => Array.from(data, (b, t) => t === 0 || (isWhite(b) && !isWhite(data[t - 1]))),
  stride: (data, stride) => strideStarts(data, stride),
  codepoint: codepointStarts,
  bytes: (data) => Array.from(data, () => true),
};
