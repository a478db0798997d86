"""Writes bert_tables.c beside it: what BertNormalizer, StripAccents and BertPreTokenizer of `pip install
tokenizers==0.23.3` make of each code point. Their categories are of several, older versions of Unicode, so they are
asked and not derived."""

import itertools
import pathlib
import unicodedata

from tokenizers import normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def bert(**options):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **options}).normalize_str


def ranges(members):
    for _, group in itertools.groupby(enumerate(sorted(members)), lambda pair: pair[1] - pair[0]):
        group = [member for _, member in group]
        yield group[0], group[-1]


def table(name, members):
    text, line = f"const bert_range bert_{name}[] = {{", ""
    members = list(ranges(members))
    for first, last in members:
        item = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(item) > 116:
            text, line = text + "\n   " + line, ""
        line += item
    return text + "\n   " + line + f"\n}};\nconst size_t bert_{name}_ranges = {len(members)};\n\n"


def main():
    clean, accents, lower = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True)
    chinese, cut = bert(handle_chinese_chars=True), pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    newer = {c: ord(lower(chr(c))) - c for c in CODE_POINTS if lower(chr(c)) != chr(c).lower()}
    assert unicodedata.unidata_version.startswith("14."), "bert_lowercase is what utf8proc of Unicode 14 lacks"
    out = "/* Made by bert_tables.py; do not edit. */\n// clang-format off\n"
    out += '#include "text/bert_normalize.h"\n\n'
    out += table("dropped", [c for c in CODE_POINTS if clean(chr(c)) == ""])
    out += table("blanks", [c for c in CODE_POINTS if clean(chr(c)) == " "])
    out += table("marks", [c for c in CODE_POINTS if accents(chr(c)) == ""])
    strip = normalizers.StripAccents().normalize_str
    out += table("accents", [c for c in CODE_POINTS if strip(chr(c)) == ""])
    out += table("chinese", [c for c in CODE_POINTS if chinese(chr(c)) != chr(c)])
    out += table("punctuation", [c for c in CODE_POINTS if len(cut(f"a{chr(c)}a")) == 3])
    out += "const bert_difference bert_lowercase[] = {\n"
    n = 0
    for difference in sorted(set(newer.values())):
        for first, last in ranges(c for c in newer if newer[c] == difference):
            out += f"    {{0x{first:X}, 0x{last:X}, {difference}}},\n"
            n += 1
    out += f"}};\nconst size_t bert_lowercase_ranges = {n};\n"
    pathlib.Path(__file__).with_name("bert_tables.c").write_text(out)


main()
