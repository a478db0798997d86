"""Makes dequantize.h: blocks of every quantised format and what `gguf` for Python (PyPI, 0.10 or later) makes of them.

    pip install gguf && python make_reference.py > dequantize.h

Each format: some blocks of random bytes with finite scales, then the float32 results as bit patterns.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import dequantize

BLOCKS = {1: 64, 32: 6, 256: 2}  # by the elements of a block
# The type, bytes and elements of a block, where its float16 scale and min stand.
FORMATS = {"F16": (T.F16, 2, 1), "BF16": (T.BF16, 2, 1), "Q4_0": (T.Q4_0, 18, 32, 0), "Q4_1": (T.Q4_1, 20, 32, 0, 2),
           "Q5_0": (T.Q5_0, 22, 32, 0), "Q5_1": (T.Q5_1, 24, 32, 0, 2), "Q8_0": (T.Q8_0, 34, 32, 0),
           "Q2_K": (T.Q2_K, 84, 256, 80, 82), "Q3_K": (T.Q3_K, 110, 256, 108), "Q4_K": (T.Q4_K, 144, 256, 0, 2),
           "Q5_K": (T.Q5_K, 176, 256, 0, 2), "Q6_K": (T.Q6_K, 210, 256, 208), "IQ4_NL": (T.IQ4_NL, 18, 32, 0),
           "IQ4_XS": (T.IQ4_XS, 136, 256, 0)}


def c_array(kind, name, values, form):
    lines = [", ".join(form.format(v) for v in values[i:i + 16]) for i in range(0, len(values), 16)]
    return f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(lines) + "};\n"


random = np.random.default_rng(7)
print("/* Made by make_reference.py with gguf for Python: bytes of blocks, and the bits of their float32 values. */")
for name, (kind, block_bytes, block, *scales) in FORMATS.items():
    n = BLOCKS[block]
    data = random.integers(0, 256, (n, block_bytes), dtype=np.uint8)
    for i, at in enumerate(scales):
        data[:, at:at + 2] = random.normal(0, [0.1, 1][i], n).astype(np.float16).view(np.uint8).reshape(n, 2)
        if i == 0:
            data[0, at:at + 2] = np.array([1e-7], np.float16).view(np.uint8)  # a subnormal scale
    if not scales:  # no infinities and NaNs, whose bits are nobody's promise
        data[:, 1] &= 0xBB
    values = dequantize(data.reshape(1, -1), kind).astype(np.float32).reshape(-1)
    print(c_array("unsigned char", f"{name}_bytes", data.reshape(-1), "{}"))
    print(c_array("uint32_t", f"{name}_bits", values.view(np.uint32), "{:#x}"))
