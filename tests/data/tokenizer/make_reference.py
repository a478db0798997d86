"""Writes the reference data beside it: what Hugging Face's `tokenizers` makes of the corpus.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 gguf regex==2024.11.6
    python make_reference.py ../../../models/SmolLM2-135M-Instruct-Q4_1.gguf

corpus.json       texts; every other file speaks of them by their place
smollm2.json      the demo model's vocabulary and merges in the pipeline of HuggingFaceTB/SmolLM2's tokenizer.json
<name>/           small tokenizers trained on the corpus: tokenizer.json, reference.json with their tokens, and for those
                  that are not byte-level decode.json (Unigram and WordPiece are trained a little differently each time)
gguf-<kind>/      the same for four GGUF files
classes.json      the code points of each Unicode class, as [first, last] ranges
bert.json         texts and what BertNormalizer makes of them, uncased and cased
nfc.json          texts and their normalization form C
forms.json        texts and their forms D, KC and KD, and what StripAccents makes of them
charsmap.json     texts and what `tokenizers` and SentencePiece make of them by nmt_nfkc, whose map gguf-nfkc has
decode.json       token sequences of SmolLM2 that end inside characters, and the text they decode to
"""

import collections
import io
import itertools
import json
import pathlib
import random
import struct
import sys
import unicodedata

import regex
from gguf import GGUFReader, GGUFWriter
from sentencepiece import SentencePieceNormalizer, SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
          r"|\s+(?!\S)|\s+")
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDING}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDING}"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

LINES = """
Hello, world!
The quick brown fox jumps over the lazy dog.
It's what they'd say; we'll see, I'm sure you've been there and they're late, aren't they?
IT'S WHAT THEY'D SAY; WE'LL SEE, I'M SURE YOU'VE BEEN THERE
'tis the season, 'S 'T 'RE 'VE 'M 'LL 'D 'ſ 'x ''s '
Prices rose 3.14% to $1,234,567.89 (about €1.1m) in 2024; see p. 42.
0 1 12 123 1234 12345 123456 1234567890 00000000000000000000
½ ¼ Ⅷ ② ٣٤٥ ४५६ １２３ 𝟘𝟙𝟚 x² H₂O
def f(x, *, y=None) -> dict[str, int]:  return {k: v**2 for k, v in x.items() if v != y}
#include <stdio.h>\\nint main(void)\\n{\\n\\treturn printf("%d\\\\n", 0x7fff) < 0;\\n}\\n
for (size_t i = 0; i < n; ++i) { sum += a[i] * b[i]; } // O(n)
{"id": 17, "name": "Zoë", "tags": ["a", "b"], "ok": true, "none": null}
SELECT * FROM users WHERE name LIKE '%O''Brien%' AND id >= 10;
https://example.org/a/b?c=d&e=%20f#g user.name+tag@example.co.uk
<div class="x">a &amp; b</div><!-- comment --><br/>
| a | b |\\n|---|---|\\n| 1 | 2 |\\n
- [ ] item\\n  - nested\\n    - deeper\\n\\n\\n1. one\\n2. two
日本語のテキストと、漢字かな交じり文。半角カナ ｶﾅ
中文文本，没有空格。标点符号！《书名》
한국어 텍스트입니다. 띄어쓰기가 있습니다. ㄱㄴㄷ
النص العربي يُكتب من اليمين إلى اليسار، مع التشكيل.
הטקסט העברי עִם ניקוד
हिन्दी में लिखा हुआ पाठ, संयुक्ताक्षर क्षत्रिय ज्ञान
ข้อความภาษาไทยไม่มีการเว้นวรรค
Русский текст с «кавычками» и тире — вот так.
Ελληνικό κείμενο με τόνους· και άνω τελεία
Tiếng Việt có nhiều dấu thanh
Türkçe: İstanbul, ılık, ğüşöç
Polski: zażółć gęślą jaźń; Čeština: příliš žluťoučký kůň
ქართული ტექსტი; Հայերեն տեքստ; አማርኛ ጽሑፍ
👍 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 1️⃣ ☺️ ☺ 🧑🏿‍🚀
emoji👨‍💻inside words🔥and🔥🔥🔥between
e\u0301 vs é, a\u0323\u0301 vs a\u0301\u0323, n\u0303o, Z\u0351\u036b\u0343a\u0369l\u0321g\u0322o\u0313
\u1100\u1161\u11a8 vs 각, \u212b vs Å, \ufb01 vs fi, \u0344
∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α∧¬β, ∑∫√∞≈≠
“quotes” ‘single’ „low“ …ellipsis – en — em ‐ hyphen \u00adsoft
© ® ™ § ¶ † ‡ • ° ± × ÷ ¢ £ ¥ ₿
a\u00a0b \u00a0 c\u2003d\u2003\u2003e\u180ef\u0085g\u0085 h\u3000i\u2028j\u2029k\u200bl\ufeffm
 leading space
  two leading spaces
trailing space 
trailing newline\\n
\\n\\n\\nleading newlines
a  b   c    d     e      f
a \\n b \\n\\n c\\r\\n\\r\\nd\\re \\t\\tf\\t g
\\t\\t\\tdeep\\n\\t\\t\\t\\tdeeper\\n
   \\n   \\n   x
 \\n
\\r\\n
\\x0b\\x0c\\x1c\\x1d\\x1e\\x1f
\\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08\\x0e\\x0f\\x10\\x11\\x12\\x13\\x14\\x15\\x16\\x17\\x18\\x19\\x1a\\x1b\\x7f
a\\x00b \\x1b[31mred\\x1b[0m
<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
text that says <|im_end|> and <|endoftext|> and <|im_start|>system
<|im_start <|im_end|>> <<|im_end|> <|im_end|><|im_end|> |im_end|> <|IM_END|>
<repo_name>x<file_sep>y<filename>z<gh_stars>1<issue_start><empty_output>
<s> </s> [INST] <tool> <tool>x</tool>  <tool>  word sword word1 word_ (word) wordé word
nai\u0308ve naïve xnai\u0308vex [CUT]  [CUT] \\t [CUT]
<|endof <|endoftext <|endoftext|
!!! ??? ... ,,, --- === *** ### ~~~ ``` \\\\\\\\ ///
a.b.c a-b-c a_b_c a/b/c a\\\\b a+b=c CamelCaseWords HTTPServer snake_case iPhone15Pro
\U00050000 \U000e0041\U000e007f \U0010fffd \ufffd \ufffe \ue000
ﬀ ﬁ ﬂ ǅ ǈ ᾈ ſ K Å ß ẞ İ ı
\u202eright to left\u202c \u2066isolate\u2069 \u200e \u200f
"""


def unescape(line):
    return line.encode("latin-1", "backslashreplace").decode("unicode_escape")


def corpus():
    lines = ["" if line == "" else unescape(line) for line in LINES.strip("\n").split("\n")]
    lines += ["", " ", "  ", "\n", "a", "é", "日", "👍"]
    lines += [c * n for c in ["a", " ", "\n", "!", "1", "é", "日", "👍", "\u0301", "\t", "'", "aB"] for n in (2, 3, 17, 63, 300)]
    rng = random.Random(20240607)
    atoms = [a for line in lines[:62] for a in line.split(" ")] + [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "1", "'s", "'ſ"]
    lines += ["".join(rng.choice(atoms) for _ in range(rng.randint(2, 9))) for _ in range(150)]
    ranges = [(0, 127)] * 3 + [(0, 0x24F), (0x300, 0x36F), (0x900, 0x1FFF), (0x2000, 0x33FF), (0, 0xD7FF), (0xE000, 0x1FFFF)]
    lines += ["".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 24))) for _ in range(100)]
    return lines


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    if isinstance(value, list):
        text = "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]\n"
    else:
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in value.items()) + "\n}\n"
    path.write_text(text)


def write_reference(path, tokenizer, lines, untrusted=None):
    """Each line's tokens where it may hold special tokens, and, if they are others, where it may not."""
    both = []
    for plain, encoder in (False, tokenizer), (True, untrusted or tokenizer):
        encoder.encode_special_tokens = plain
        both.append([encoder.encode(line, add_special_tokens=False).ids for line in lines])
    tokenizer.encode_special_tokens = False
    write(path, [[trusted] if trusted == untrusted else [trusted, untrusted] for trusted, untrusted in zip(*both)])


def smollm2(path):
    fields = GGUFReader(path).fields
    tokens, kinds, merges = (fields["tokenizer.ggml." + key].contents() for key in ("tokens", "token_type", "merges"))
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    return tokenizer


ADDED = [AddedToken("<|im_start|>", special=True, normalized=False), AddedToken("<|im_end|>", special=True, normalized=False),
         AddedToken("<tool>", special=False, normalized=False, lstrip=True, rstrip=True),
         AddedToken("word", special=False, normalized=False, single_word=True),
         AddedToken("nai\u0308ve", special=False, normalized=True), AddedToken("   ", special=False, normalized=True),
         AddedToken("[CUT]", special=True, normalized=True, lstrip=True)]


def small(name, lines, pipeline, normalizer=None, all_bytes=True, bos=False, **model):
    """A byte-level BPE of some 500 merges, trained on the corpus."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer, tokenizer.decoder = pipeline, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if all_bytes else []
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False,
                                                             special_tokens=["<|endoftext|>", "<unk>"]))
    tokenizer.add_special_tokens([a for a in ADDED if a.special])
    tokenizer.add_tokens([a for a in ADDED if not a.special])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))])
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_reference(folder / "reference.json", tokenizer, lines)


def all_small(lines):
    def byte_level(**options):
        return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})

    def split(pattern, behavior="isolated", invert=False):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), byte_level(use_regex=False)])

    small("gpt2", lines, byte_level())
    small("gpt2-space", lines, byte_level(add_prefix_space=True), all_bytes=False, unk_token="<unk>", fuse_unk=True)
    small("digits", lines, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), byte_level()]), all_bytes=False)
    small("llama3", lines, split(LLAMA3), ignore_merges=True, bos=True)
    small("qwen2", lines, split(QWEN2), normalizers.NFC())
    small("cl100k", lines, split(CL100K, "removed", True))
    small("o200k", lines, split(O200K), normalizers.Sequence([normalizers.NFC()]), ignore_merges=True)


# `tokenizers` fails where it looks for these in a text that a regular expression or a form made shorter.
ADDED_AS_THEY_CAME = [a for a in ADDED if not a.normalized]

BLANK = "\u2581"
SPM_SPECIALS = ["<unk>", "<s>", "</s>"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def add_tokens(tokenizer, specials, added=ADDED):
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    tokenizer.add_special_tokens([a for a in added if a.special])
    tokenizer.add_tokens([a for a in added if not a.special])
    return tokenizer


def with_steps(model, normalizer=None, pipeline=None, decoder=None):
    tokenizer = Tokenizer(model)
    for name, part in ("normalizer", normalizer), ("pre_tokenizer", pipeline), ("decoder", decoder):
        if part:
            setattr(tokenizer, name, part)
    return tokenizer


def trained(lines, model, trainer, pipeline):
    """The trained model as JSON has it."""
    tokenizer = with_steps(model, pipeline=pipeline)
    tokenizer.train_from_iterator(lines, trainer)
    return json.loads(tokenizer.to_str())["model"]


def for_training(lines):
    """Without what would make a special token one of the model's own, and without rare characters."""
    lines = [line for line in lines if not any(mark in line for mark in ("<|", "|>", "[CUT]", "<s>"))]
    count = collections.Counter("".join(lines))
    return ["".join(c for c in line if count[c] >= 4 and c != "\0") for line in lines]


def spm_bpe(lines, fallback=BYTES, across_blanks=False, fuse_unk=True):
    """A BPE of characters as Llama 2 has it: special tokens, bytes, then what was trained."""
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=SPM_SPECIALS)
    model = trained(for_training(lines), models.BPE(), trainer, pre_tokenizers.Metaspace(split=not across_blanks))
    merges = [tuple(merge) for merge in model["merges"]]
    letters = [t for t in model["vocab"] if t not in SPM_SPECIALS and t not in {a + b for a, b in merges}]
    tokens = list(dict.fromkeys(SPM_SPECIALS + fallback + [a + b for a, b in merges] + letters))
    return {"vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges, "unk_token": "<unk>", "fuse_unk": fuse_unk,
            "byte_fallback": bool(fallback)}


def unigram(lines, fallback=BYTES):
    trainer = trainers.UnigramTrainer(vocab_size=900, show_progress=False, special_tokens=SPM_SPECIALS, unk_token="<unk>",
                                      initial_alphabet=[BLANK])
    lines = [line for line in for_training(lines) if line.isprintable()]
    pieces = [tuple(p) for p in trained(lines, models.Unigram(), trainer, pre_tokenizers.Metaspace())["vocab"]]
    # Single precision, so that a GGUF file has the same scores.
    pieces = [(piece, struct.unpack("f", struct.pack("f", score))[0]) for piece, score in pieces]
    return pieces[:3] + [(b, 0.0) for b in fallback] + pieces[3:]


def out_of_reach(pieces):
    """Special tokens can't be found in a text: Unigram itself would."""
    return [(f"\U0010ffff{i}" if piece in SPM_SPECIALS else piece, score) for i, (piece, score) in enumerate(pieces)]


def word_piece(lines):
    trainer = trainers.WordPieceTrainer(vocab_size=900, show_progress=False, special_tokens=BERT_SPECIALS)
    normalize = normalizers.BertNormalizer().normalize_str
    return trained(for_training([normalize(line) for line in lines] + lines), models.WordPiece(unk_token="[UNK]"), trainer,
                   pre_tokenizers.BertPreTokenizer())["vocab"]


def is_clear(tokenizer, ids):
    """No run of byte tokens has both whole characters and other bytes: `tokenizers` waits for the end of such a run."""
    run = b""
    for token in [tokenizer.id_to_token(i) for i in ids] + [""]:
        if token in BYTES:
            run += bytes([BYTES.index(token)])
            continue
        text = run.decode(errors="replace").replace("\ufffd", "")
        if text and text.encode() != run:
            return False
        run = b""
    return True


def write_decode(path, tokenizer, n_specials):
    rng = random.Random(17)
    added, n_vocab, out = tokenizer.get_added_tokens_decoder(), tokenizer.get_vocab_size(), []
    characters = ["\u00e9", "\u65e5", "\U0001f525", "\n"]
    has_bytes = tokenizer.token_to_id("<0x00>") is not None
    while len(out) < 150:
        ids = []
        for _ in range(rng.randint(1, 7)):
            kind = rng.random()
            if kind < 0.2 and has_bytes:
                ids += [tokenizer.token_to_id(f"<0x{b:02X}>") or 0 for b in rng.choice(characters).encode()]
            elif kind < 0.3:
                ids.append(rng.randrange(n_specials))
            else:
                ids.append(rng.randrange(n_vocab))
        plain = [i for i in ids if i not in added or not added[i].special]
        if is_clear(tokenizer, ids) and is_clear(tokenizer, plain):
            out.append([ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)])
    write(path, out)


def write_all(name, tokenizer, lines, untrusted=None, specials=SPM_SPECIALS):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if not name.startswith("gguf-"):
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_reference(folder / "reference.json", tokenizer, lines, untrusted)
    write_decode(folder / "decode.json", tokenizer, len(specials))


def write_gguf(name, model, tokens, kinds, scores, unknown, **flags):
    writer = GGUFWriter(HERE / name / f"{name}.gguf", "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if scores:
        writer.add_token_scores(scores)
    writer.add_unk_token_id(unknown)
    for flag, value in flags.items():
        getattr(writer, f"add_{flag}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def kinds_of(tokens, specials):
    return [2 if t in ("<unk>", "[UNK]") else 3 if t in specials else 6 if t in BYTES else 1 for t in tokens]


def implied_merges(scores):
    """As transformers converts a SentencePiece model."""
    pairs = [(-score, token[:i], token[i:]) for token, score in scores.items() for i in range(1, len(token))]
    return [(left, right) for _, left, right in sorted(pairs, key=lambda pair: pair[0]) if left in scores and right in scores]


def gguf_llama(lines, model):
    made = {a + b for a, b in model["merges"]}
    scores = {t: float(-i) if t in made else -1e6 for i, t in enumerate(model["vocab"]) if t not in SPM_SPECIALS + BYTES}
    steps = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    tokenizer = with_steps(models.BPE(**{**model, "merges": implied_merges(scores)}), steps, None, SPM_DECODER)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPM_SPECIALS])
    write_all("gguf-llama", tokenizer, lines)
    tokens = list(model["vocab"])
    write_gguf("gguf-llama", "llama", tokens, kinds_of(tokens, SPM_SPECIALS), [scores.get(t, 0.0) for t in tokens], 0,
               bos_token_id=1, eos_token_id=2)


def gguf_t5(name, lines, pieces, normalize=None, charsmap=None):
    """`normalize` is what the charsmap does to a text before the rest."""
    collapse = normalizers.Sequence([normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " "),
                                     normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    made = [with_steps(models.Unigram(p, unk_id=0, byte_fallback=True), collapse, None, SPM_DECODER)
            for p in (pieces, out_of_reach(pieces))]
    made[0].add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPM_SPECIALS])
    write_all(name, made[0], [normalize(line) for line in lines] if normalize else lines, made[1])
    tokens, scores = zip(*pieces)
    more = {"precompiled_charsmap": charsmap} if charsmap else {}
    write_gguf(name, "t5", list(tokens), kinds_of(tokens, SPM_SPECIALS), list(scores), 0, eos_token_id=2,
               remove_extra_whitespaces=True, **more)


def gguf_bert(lines, vocab):
    tokenizer = with_steps(models.WordPiece(vocab, unk_token="[UNK]"), normalizers.BertNormalizer(),
                           pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in BERT_SPECIALS])
    write_all("gguf-bert", tokenizer, lines, specials=BERT_SPECIALS)
    tokens = [t for t, _ in sorted(vocab.items(), key=lambda item: item[1])]
    phantom = [t if t in BERT_SPECIALS else t[2:] if t.startswith("##") else BLANK + t for t in tokens]
    write_gguf("gguf-bert", "bert", phantom, kinds_of(tokens, BERT_SPECIALS), None, 1, bos_token_id=2, eos_token_id=3)


SPM_STEPS = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
SPM_DECODER = decoders.Sequence(SPM_STEPS + [decoders.Strip(" ", 1, 0)])


def sentencepiece(lines):
    prepend = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    model = spm_bpe(lines)
    write_all("llama2", add_tokens(with_steps(models.BPE(**model), prepend, None, SPM_DECODER), SPM_SPECIALS), lines)
    gguf_llama(lines, model)
    mistral = models.BPE(**spm_bpe(lines, across_blanks=True), ignore_merges=True)
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    write_all("mistral", add_tokens(with_steps(mistral, None, first, SPM_DECODER), SPM_SPECIALS), lines)
    gemma = models.BPE(**spm_bpe(lines, fallback=BYTES[:0xD0], fuse_unk=False))
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = with_steps(gemma, normalizers.Replace(" ", BLANK), split, decoders.Sequence(SPM_STEPS))
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in (BLANK * 2, "\n\n")])
    write_all("gemma", add_tokens(tokenizer, SPM_SPECIALS), lines)


def unigrams(lines):
    pieces = unigram(lines)
    gguf_t5("gguf-t5", lines, pieces)
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made = [add_tokens(with_steps(models.Unigram(p, unk_id=0, byte_fallback=True), None, first, SPM_DECODER), s)
            for p, s in ((pieces, SPM_SPECIALS), (out_of_reach(pieces), []))]
    write_all("unigram-bytes", made[0], lines, renumbered(made[1], made[0]))
    pieces = unigram(lines, [])
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made = [add_tokens(with_steps(models.Unigram(p, unk_id=0), None, words, decoders.Metaspace()), s)
            for p, s in ((pieces, SPM_SPECIALS), (out_of_reach(pieces), []))]
    made[0].post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    write_all("unigram", made[0], lines, renumbered(made[1], made[0]))


def message_fields(message):
    """The (number, value) of a protocol buffer's fields."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (message[at - 1] & 127) << shift
            if message[at - 1] < 128:
                return value
            shift += 7

    while at < len(message):
        key = varint()
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size = varint()
        if key & 7:
            yield key >> 3, message[at:at + size]
            at += size
        else:
            yield key >> 3, size


def nmt_nfkc(lines):
    """The precompiled_charsmap that SentencePiece puts into a model: the normalizer_spec of ModelProto is field 3."""
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(for_training(lines)), model_writer=model, vocab_size=300,
                               hard_vocab_limit=False, normalization_rule_name="nmt_nfkc", minloglevel=2)
    return dict(message_fields(dict(message_fields(model.getvalue()))[3]))[2]


def charsmaps(lines):
    charsmap = nmt_nfkc(lines)
    normalizer = SentencePieceNormalizer(rule_name="nmt_nfkc", add_dummy_prefix=False, escape_whitespaces=False,
                                         remove_extra_whitespaces=False)
    normalize, precompiled = normalizer.normalize, normalizers.Precompiled(charsmap)
    gguf_t5("gguf-nfkc", lines, unigram([normalize(line) for line in lines]), normalize, charsmap)
    pieces = unigram([normalize(line) for line in lines], [])
    steps = normalizers.Sequence([precompiled, normalizers.Strip(left=False, right=True),
                                  normalizers.Replace(Regex(" {2,}"), BLANK)])
    made = [add_tokens(with_steps(models.Unigram(p, unk_id=0), steps, pre_tokenizers.Metaspace(), decoders.Metaspace()), s,
                       ADDED_AS_THEY_CAME) for p, s in ((pieces, SPM_SPECIALS), (out_of_reach(pieces), []))]
    write_all("nfkc", made[0], lines, renumbered(made[1], made[0]))
    changed = [chr(c) for c in CODE_POINTS if c and precompiled.normalize_str(chr(c)) != chr(c)]
    rng = random.Random(31)
    neighbours = [chr(c) for c in range(0x300, 0x370)] + list("aeo \r\n\u200d\u0600\uff76\uff9e\u0e33\U0001f468")
    texts = ["".join(changed[i:i + 60]) for i in range(0, len(changed), 60)]
    texts += ["".join(rng.choice(rng.choice([changed, neighbours])) for _ in range(9)) for _ in range(600)]
    write(HERE / "charsmap.json", [[text, precompiled.normalize_str(text), normalize(text)] for text in texts])


def forms():
    """A part of what the forms change, and its neighbours at random."""
    by = [normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(), normalizers.StripAccents()]
    rng = random.Random(37)
    changed = [chr(c) for c in CODE_POINTS if any(n.normalize_str(chr(c)) != chr(c) for n in by) and not 0xAC00 <= c < 0xD7A4]
    changed += [chr(c) for c in (0x32FF, 0xA7F2, 0xAB69, 0x10781, 0x1E030, 0x1F16C, 0x1FBF0, 0xAC01, 0xFDFA, 0x897, 0x1CF2)]
    texts = ["".join(rng.sample(changed, 30)) for _ in range(60)] + ["".join(changed[-11:])]
    write(HERE / "forms.json", [[text] + [n.normalize_str(text) for n in by] for text in texts])


def other_steps(lines):
    """Components that no tokenizer above has, before models of characters that lose nothing."""
    model = spm_bpe(lines)
    normal = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"[0-9]+(\.[0-9]+)?"), "#"),
                                   normalizers.Strip()])
    tokenizer = with_steps(models.BPE(**model), normal, pre_tokenizers.Whitespace(), SPM_DECODER)
    add_tokens(tokenizer, SPM_SPECIALS, ADDED_AS_THEY_CAME)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    write_all("words", tokenizer, lines)
    normal = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    cut = pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit("-"), pre_tokenizers.Punctuation()])
    tokenizer = add_tokens(with_steps(models.BPE(**model), normal, cut, SPM_DECODER), SPM_SPECIALS, ADDED_AS_THEY_CAME)
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    write_all("accents", tokenizer, lines)


def renumbered(tokenizer, like):
    assert all(tokenizer.token_to_id(a.content) == like.token_to_id(a.content) for a in ADDED)
    return tokenizer


def word_pieces(lines):
    vocab = word_piece(lines)
    gguf_bert(lines, vocab)
    single = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    for name, options, most in ("bert", {}, 100), ("bert-cased", {"lowercase": False, "handle_chinese_chars": False}, 12):
        model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=most)
        tokenizer = add_tokens(with_steps(model, normalizers.BertNormalizer(**options), pre_tokenizers.BertPreTokenizer(),
                                          decoders.WordPiece(cleanup=name == "bert")), BERT_SPECIALS)
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=single)
        write_all(name, tokenizer, lines, specials=BERT_SPECIALS)


def ranges(members):
    out = []
    for _, group in itertools.groupby(enumerate(sorted(members)), lambda pair: pair[1] - pair[0]):
        group = list(group)
        out.append([group[0][1], group[-1][1]])
    return out


def classes():
    text = "".join(map(chr, CODE_POINTS))
    found = {}
    for name, pattern in {"letter": r"\p{L}", "upper": r"[\p{Lu}\p{Lt}]", "lower": r"\p{Ll}", "number": r"\p{N}", "mark": r"\p{M}",
                          "punctuation": r"\p{P}", "symbol": r"\p{S}", "space": r"\s"}.items():
        pieces = pre_tokenizers.Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text)
        found[name] = ranges(ord(c) for piece, _ in pieces for c in piece)
    # \w shows only in what a single_word token may stand beside; `tokenizers` has it in a newer Unicode than \p.
    tokenizer = Tokenizer(models.BPE(vocab={"?": 0}, merges=[], unk_token="?"))
    tokenizer.add_tokens([AddedToken("x", single_word=True, normalized=False)])
    assigned = [c for c in CODE_POINTS if not regex.match(r"\p{Cn}", chr(c))]
    offsets = tokenizer.encode("".join(" x" + chr(c) for c in assigned if chr(c) != "x"))
    alone = {start for token, (start, _) in zip(offsets.ids, offsets.offsets) if token != 0}
    beside = [c for i, c in enumerate(c for c in assigned if chr(c) != "x") if 3 * i + 1 not in alone]
    found["word"] = ranges(beside + [ord("x")])
    return found


def nfc():
    normalize = normalizers.NFC().normalize_str
    texts = [chr(c) for c in CODE_POINTS if normalize(chr(c)) != chr(c)]
    # Hangul goes by a rule, and Dives Akuru (U+11900) is newer than the Unicode 12 that `tokenizers` composes with.
    decomposed = (unicodedata.normalize("NFD", chr(c)) for c in CODE_POINTS if not 0xAC00 <= c < 0xD7A4 and c >> 8 != 0x119)
    texts += [d for d in decomposed if len(d) > 1]
    rng = random.Random(7)
    marks = [c for c in range(0x300, 0x1AB0) if unicodedata.ucd_3_2_0.combining(chr(c))]
    bases = [ord(c) for c in "aeouAEOU <>=\u1100\u1161\u11a8\uac00\u0915\u09c7\u0b47\u0344\u1e9b\u03b9"]
    for _ in range(300):
        texts.append("".join(chr(rng.choice(bases if rng.random() < 0.4 else marks)) for _ in range(rng.randint(2, 9))))
    return [[text, normalize(text)] for text in texts]


def bert():
    """Every character that BERT's normalizer changes, but for runs of the same kind, and random neighbours."""
    uncased, cased = normalizers.BertNormalizer().normalize_str, normalizers.BertNormalizer(lowercase=False).normalize_str
    rest = [(0xAC00, 0xD7A4), (0xE000, 0xF900), (0x3400, 0xA000), (0x20000, 0x30000), (0xF0000, 0x110000)]
    ends = [c for pair in rest for c in (pair[0] - 1, pair[0], pair[0] + 1, pair[1] - 2, pair[1] - 1, pair[1])]
    changed = [chr(c) for c in CODE_POINTS if uncased(chr(c)) != chr(c) and not any(a <= c < b for a, b in rest)]
    changed += [chr(c) for c in ends if c < 0x110000 and not 0xD800 <= c < 0xE000]
    rng = random.Random(23)
    texts = ["".join(changed[i:i + 40]) for i in range(0, len(changed), 40)]
    texts += ["".join(rng.choice(changed) for _ in range(12)) for _ in range(150)]
    return [[text, uncased(text), cased(text)] for text in texts]


def decode(tokenizer):
    rng = random.Random(11)
    by_text = sorted(range(17, tokenizer.get_vocab_size()), key=lambda i: tokenizer.id_to_token(i))
    cut = [i for i in by_text if "\ufffd" in tokenizer.decode([i])]
    out = []
    for _ in range(300):
        pools = rng.choices([cut, by_text, range(17)], [7, 2, 1], k=rng.randint(1, 9))
        ids = [rng.choice(pool) for pool in pools]
        out.append([ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)])
    return out


def main():
    lines = corpus()
    write(HERE / "corpus.json", lines)
    tokenizer = smollm2(sys.argv[1])
    write_reference(HERE / "smollm2.json", tokenizer, lines)
    write(HERE / "decode.json", decode(tokenizer))
    all_small(lines)
    sentencepiece(lines)
    unigrams(lines)
    charsmaps(lines)
    other_steps(lines)
    word_pieces(lines)
    write(HERE / "classes.json", classes())
    write(HERE / "nfc.json", nfc())
    forms()
    write(HERE / "bert.json", bert())


main()
