"""Makes gqa_tied_int8.gguf and gqa_tied_int4.gguf: what --quantization must make of gqa_tied.gguf while loading it.

Q8_0 is that of the `gguf` package. Q4_1 is written here a second time, over all blocks at once, in the order of sums that
kernels/quantize.c gives, so that the bytes must be the same. Norms stay; the embedding is Q8_0 in both.

    pip install gguf numpy
    python make_quantized.py
"""

from pathlib import Path

import gguf
import numpy
from gguf import GGMLQuantizationType as Type

HERE = Path(__file__).parent
ONE = numpy.float32


def total(x):
    """Of [n][32]: eight sums, then these in a tree."""
    lanes = (x[:, 0:8] + x[:, 8:16]) + (x[:, 16:24] + x[:, 24:32])
    pairs = lanes[:, 0::2] + lanes[:, 1::2]
    return ((pairs[:, 0] + pairs[:, 1]) + (pairs[:, 2] + pairs[:, 3]))[:, None]


def quants_on(x, scale, least):
    with numpy.errstate(divide="ignore"):
        inverse = numpy.where(scale > 0, ONE(1) / scale, ONE(0))
    return numpy.floor(numpy.clip((x - least) * inverse, ONE(0), ONE(15)) + ONE(0.5))


def fit(x, quants, scale, least):
    sum_x, sum_q, sum_xq, sum_qq = total(x), total(quants), total(x * quants), total(quants * quants)
    determinant = ONE(32) * sum_qq - sum_q * sum_q
    safe = numpy.where(determinant > 0, determinant, ONE(1))
    return (numpy.where(determinant > 0, (ONE(32) * sum_xq - sum_q * sum_x) / safe, scale),
            numpy.where(determinant > 0, (sum_qq * sum_x - sum_q * sum_xq) / safe, least))


def lines(x):
    """Every (scale, min) that is considered, in order."""
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    yield (high - low) / ONE(15), low
    for more in range(5):
        step = (high - low) / ONE(15 + more)
        scale, least = step, (low + high) / ONE(2) - step * ONE(7.5)
        for _ in range(2):
            scale, least = fit(x, quants_on(x, scale, least), scale, least)
        yield scale, least


def q4_1(weights):
    x = weights.reshape(-1, 32)
    error = numpy.full((len(x), 1), numpy.inf, numpy.float32)
    best = numpy.zeros((len(x), 34), numpy.float32)  # scale, min, quants
    for line in lines(x):
        scale, least = (v.astype(numpy.float16).astype(numpy.float32) for v in line)
        quants = quants_on(x, scale, least)
        off = (scale * quants + least) - x
        found = total(off * off)
        best = numpy.where(found < error, numpy.hstack([scale, least, quants]), best)
        error = numpy.minimum(error, found)
    nibbles = best[:, 2:].astype(numpy.uint8)
    packed = nibbles[:, :16] | nibbles[:, 16:] << 4
    blocks = numpy.hstack([best[:, :2].astype(numpy.float16).view(numpy.uint8), packed])
    return blocks.reshape(*weights.shape[:-1], -1)


def make(kind):
    reader = gguf.GGUFReader(HERE / "gqa_tied.gguf")
    writer = gguf.GGUFWriter(HERE / f"gqa_tied_{kind}.gguf", "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), field.types[0],
                                 field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if kind == "int8" or tensor.name == "token_embd.weight":
            writer.add_tensor(tensor.name, gguf.quants.quantize(weights, Type.Q8_0), raw_dtype=Type.Q8_0)
        else:
            writer.add_tensor(tensor.name, q4_1(weights), raw_dtype=Type.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    make("int8")
    make("int4")
