"""Makes the tiny random llamas that tests/unit/model reads, and what transformers computes with them.

For each variant: NAME/config.json and NAME/*.safetensors (Hugging Face's names and rotary layout), NAME.gguf (the same weights,
GGUF's names and layout), NAME.f32 (reference logits, float32 [n_tokens][n_vocab]). quantized.gguf and quantized.f32 hold every
format of blocks of 32 that `gguf` can make, kquants.gguf and kquants.f32 the others; their logits are computed with the weights
as `gguf` dequantises them. tokens.u32 is the input of all.

    pip install torch transformers gguf safetensors numpy
    python make_tiny.py
"""

import json
import shutil
from pathlib import Path

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
N_TOKENS, N_VOCAB = 40, 128
SIZES = dict(vocab_size=N_VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, max_position_embeddings=256,
             rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None)
VARIANTS = {
    # 4 query heads over 2 key-value heads, output head = embedding
    "gqa_tied": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, dtype="float16"),
    # every head its own keys and values, own output head, two files
    "mha_untied": dict(num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False, dtype="bfloat16", shards=2),
    # biases on q, k, v, o; heads wider than hidden_size / n_heads; another base of the rotary frequencies
    "biases": dict(num_attention_heads=4, num_key_value_heads=1, head_dim=32, attention_bias=True, tie_word_embeddings=True,
                   rope_theta=500.0, dtype="float32"),
}
GGUF_TYPES = {"float16": Type.F16, "bfloat16": Type.BF16, "float32": Type.F32}
# quantized.gguf: which format each kind of weight gets
QUANTIZED = {"token_embd": Type.Q8_0, "attn_q": Type.Q4_0, "attn_k": Type.Q5_0, "attn_v": Type.Q5_1, "attn_output": Type.Q4_1,
             "ffn_gate": Type.Q4_1, "ffn_up": Type.Q8_0, "ffn_down": Type.Q5_0}
# kquants.gguf, the same. `gguf` reads these formats but does not make them: their blocks are random.
KQUANTS = {"token_embd": Type.Q6_K, "attn_q": Type.Q4_K, "attn_k": Type.Q5_K, "attn_v": Type.Q6_K, "attn_output": Type.IQ4_XS,
           "ffn_gate": Type.Q3_K, "ffn_up": Type.Q2_K, "ffn_down": Type.IQ4_NL}
# Where a random block has its float16 scale and min, and the min over the scale that makes the elements' mean zero.
RANDOM_BLOCKS = {Type.Q2_K: (80, 82, 1.5), Type.Q3_K: (108, None, 0), Type.Q4_K: (0, 2, 7.5), Type.Q5_K: (0, 2, 15.5),
                 Type.Q6_K: (208, None, 0), Type.IQ4_NL: (0, None, 0), Type.IQ4_XS: (0, None, 0)}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def config_of(variant, **sizes):
    options = {k: v for k, v in variant.items() if k not in ("dtype", "shards", "rope_theta")}
    return LlamaConfig(**SIZES | sizes, **options, rope_parameters={"rope_type": "default", "rope_theta": variant.get("rope_theta", 10000.0)},
                       attn_implementation="eager")


def random_weights(config, dtype, seed):
    """Large enough that attention is peaked and logits spread over several units."""
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config)
    weights = {}
    for name, parameter in model.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.2 * noise
        elif name.endswith("bias"):
            value = 0.5 * noise
        else:
            value = noise * (1.5 / parameter.shape[1] ** 0.5)
        weights[name] = value.to(getattr(torch, dtype))
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return weights


def logits_of(config, weights, tokens):
    model = LlamaForCausalLM(config).float()
    missing = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if config.tie_word_embeddings else []), missing
    model.tie_weights()
    with torch.no_grad():
        return model(torch.tensor(tokens)[None].long()).logits[0].numpy().astype("<f4")


def rotary_to_gguf(array, n_heads):
    """Rows (i, i + n/2) of each head become neighbours."""
    shape = array.shape
    return array.reshape(n_heads, 2, shape[0] // n_heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def rotary_from_gguf(array, n_heads):
    shape = array.shape
    return array.reshape(n_heads, shape[0] // n_heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def heads_of(config, name):
    return config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"
    return f"{GGUF_NAMES[stem]}.{kind}"


def random_blocks(array, kind):
    """Blocks for an array of this shape and deviation."""
    scale_at, min_at, min_over_scale = RANDOM_BLOCKS[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    random = numpy.random.default_rng(array.size + kind)
    data = random.integers(0, 256, (array.size // block, block_bytes), dtype=numpy.uint8)

    def set_scales(scale):
        for at, value in (scale_at, scale), (min_at, scale * min_over_scale):
            if at is not None:
                data[:, at:at + 2] = value.astype("<f2").view(numpy.uint8).reshape(-1, 2)

    set_scales(numpy.ones(len(data)))
    set_scales(array.std() / gguf.quants.dequantize(data, kind).std() * random.uniform(0.5, 1.5, len(data)))
    return data.reshape(array.shape[0], -1)


def write_gguf(path, name, config, weights, type_of):
    """Returns the weights as a reader of the file sees them, under Hugging Face's names."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    seen = {}
    for key, value in weights.items():
        array = value.float().numpy()
        n_heads = heads_of(config, key)
        if n_heads:
            array = rotary_to_gguf(array, n_heads)
        kind = Type.F32 if array.ndim == 1 else type_of(gguf_name(key))
        data = random_blocks(array, kind) if kind in RANDOM_BLOCKS else gguf.quants.quantize(numpy.ascontiguousarray(array), kind)
        writer.add_tensor(gguf_name(key), data, raw_dtype=kind)
        back = gguf.quants.dequantize(data, kind).reshape(array.shape)
        seen[key] = torch.from_numpy((rotary_from_gguf(back, n_heads) if n_heads else back).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return seen


def write_safetensors(folder, config, weights, dtype, n_shards):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    if n_shards == 1:
        save_file(weights, folder / "model.safetensors")
        return
    weight_map, names = {}, sorted(weights)
    for i in range(n_shards):
        file = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        part = {name: weights[name] for name in names[i::n_shards]}
        save_file(part, folder / file)
        weight_map |= {name: file for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")


def main():
    tokens = numpy.random.default_rng(1).integers(0, N_VOCAB, N_TOKENS).astype("<u4")
    tokens.tofile(HERE / "tokens.u32")
    for seed, (name, variant) in enumerate(VARIANTS.items()):
        config = config_of(variant)
        weights = random_weights(config, variant["dtype"], seed)
        write_safetensors(HERE / name, config, weights, variant["dtype"], variant.get("shards", 1))
        write_gguf(HERE / f"{name}.gguf", name, config, weights, lambda _: GGUF_TYPES[variant["dtype"]])
        logits = logits_of(config, weights, tokens)
        logits.tofile(HERE / f"{name}.f32")
        print(name, "logits: mean", logits.mean(), "deviation", logits.std(), "largest", abs(logits).max())
    config = config_of(VARIANTS["gqa_tied"])
    weights = random_weights(config, "float32", 7)
    seen = write_gguf(HERE / "quantized.gguf", "quantized", config, weights, lambda n: QUANTIZED[n.split(".")[-2]])
    logits_of(config, seen, tokens).tofile(HERE / "quantized.f32")
    config = config_of(VARIANTS["gqa_tied"], hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    weights = random_weights(config, "float32", 8)
    seen = write_gguf(HERE / "kquants.gguf", "kquants", config, weights, lambda n: KQUANTS[n.split(".")[-2]])
    logits = logits_of(config, seen, tokens)
    logits.tofile(HERE / "kquants.f32")
    print("kquants logits: mean", logits.mean(), "deviation", logits.std(), "largest", abs(logits).max())


main()
