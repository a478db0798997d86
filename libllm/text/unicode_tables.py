"""Writes unicode_tables.c beside it. The data is Unicode 16.0, from `pip install regex==2024.11.6`."""

import pathlib
import regex

PAGE = 128
CLASSES = [r"\p{L}", r"[\p{Lu}\p{Lt}]", r"\p{Ll}", r"\p{N}", r"\p{M}", r"\p{P}", r"\p{S}", r"\p{White_Space}",
           r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"]  # in the order of the bits in unicode.h
SURROGATES = range(0xD800, 0xE000)


def classes_of_all():
    text = "".join(chr(c) for c in range(0x110000) if c not in SURROGATES)
    classes = [0] * 0x110000
    for bit, pattern in enumerate(CLASSES):
        for character in regex.findall(pattern, text):
            classes[ord(character)] |= 1 << bit
    return classes


def table(declaration, numbers):
    text, line = declaration + " = {", ""
    for number in numbers:
        if len(line) > 114:
            text, line = text + "\n   " + line, ""
        line += f" {number},"
    return text + "\n   " + line + "\n};\n\n"


def main():
    assert regex.match(r"\p{L}", "\U00010D4A"), "this regex is older than Unicode 16"
    assert not regex.match(r"\p{L}", "\U00011DB0"), "this regex is newer than Unicode 16"
    classes = classes_of_all()
    sets = sorted(set(classes))
    pages, page_of = [], []
    for first in range(0, 0x110000, PAGE):
        page = [sets.index(c) for c in classes[first:first + PAGE]]
        if page not in pages:
            pages.append(page)
        page_of.append(pages.index(page))
    assert len(pages) <= 256 and len(sets) <= 256
    out = "/* Made by unicode_tables.py from Unicode 16.0; do not edit. */\n// clang-format off\n"
    out += '#include "text/unicode.h"\n\n'
    out += table("const uint16_t unicode_ascii[128]", classes[:128])
    out += table("const uint16_t unicode_class_sets[]", sets)
    out += table("const uint8_t unicode_page_of[UNICODE_PAGES]", page_of)
    out += "const uint8_t unicode_pages[][1 << UNICODE_PAGE_BITS] = {\n"
    for page in pages:
        out += table("    ", page).replace("     = {", "    {").replace("\n};\n\n", "\n    },\n")
    pathlib.Path(__file__).with_name("unicode_tables.c").write_text(out + "};\n")


main()
