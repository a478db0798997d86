"""Makes dequantize.h: blocks of every quantised format and what `gguf` for Python (PyPI, 0.10 or later) makes of them.

    pip install gguf && python make_reference.py > dequantize.h

Each format: ROWS blocks of random bytes with finite scales, then the float32 results as bit patterns.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import dequantize

BLOCKS = 6
FORMATS = {"F16": (T.F16, 2, 1), "BF16": (T.BF16, 2, 1), "Q4_0": (T.Q4_0, 18, 32), "Q4_1": (T.Q4_1, 20, 32),
           "Q5_0": (T.Q5_0, 22, 32), "Q5_1": (T.Q5_1, 24, 32), "Q8_0": (T.Q8_0, 34, 32)}


def c_array(kind, name, values, form):
    lines = [", ".join(form.format(v) for v in values[i:i + 16]) for i in range(0, len(values), 16)]
    return f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(lines) + "};\n"


random = np.random.default_rng(7)
print("/* Made by make_reference.py with gguf for Python: bytes of blocks, and the bits of their float32 values. */")
for name, (kind, block_bytes, block) in FORMATS.items():
    n = BLOCKS if block == 32 else 64
    data = random.integers(0, 256, (n, block_bytes), dtype=np.uint8)
    if block == 32:
        data[:, 0:2] = random.normal(0, 0.1, n).astype(np.float16).view(np.uint8).reshape(n, 2)
        data[0, 0:2] = np.array([1e-7], np.float16).view(np.uint8)  # a subnormal scale
        if name.endswith("1"):
            data[:, 2:4] = random.normal(0, 1, n).astype(np.float16).view(np.uint8).reshape(n, 2)
    else:  # no infinities and NaNs, whose bits are nobody's promise
        data[:, 1] &= 0xBB
    values = dequantize(data.reshape(1, -1), kind).astype(np.float32).reshape(-1)
    print(c_array("unsigned char", f"{name}_bytes", data.reshape(-1), "{}"))
    print(c_array("uint32_t", f"{name}_bits", values.view(np.uint32), "{:#x}"))
