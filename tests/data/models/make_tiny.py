"""Makes the tiny random models that tests/unit/model reads, and what transformers computes with them.

For each of MODELS: NAME/config.json and NAME/*.safetensors (Hugging Face's names and rotary layout), NAME.gguf (the same
weights, with the names, keys and layout of llama.cpp's converter), NAME.f32 (reference logits, float32 [n_tokens][n_vocab]).
quantized.gguf and kquants.gguf with their .f32 hold every block format once; the logits are computed with the weights as
`gguf` dequantises them. tokens.u32 is the input of all; phi3_short.f32 is of its first SHORT tokens.

    pip install torch transformers gguf safetensors numpy
    python make_tiny.py [NAME...]
"""

import json
import math
import shutil
import sys
from pathlib import Path

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
N_TOKENS, N_VOCAB, SHORT = 40, 128, 16
SIZES = dict(model_type="llama", vocab_size=N_VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=None,
             eos_token_id=None, pad_token_id=None, dtype="float16", tie_word_embeddings=True)
NARROW = dict(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1)
SMALL = NARROW | dict(head_dim=32)


def rope(kind="default", **options):
    return {"rope_type": kind, "rope_theta": 10000.0} | options


MODELS = {
    # 4 query heads over 2 key-value heads, output head = embedding
    "gqa_tied": {},
    # every head its own keys and values, own output head, two files
    "mha_untied": dict(num_key_value_heads=4, tie_word_embeddings=False, dtype="bfloat16", shards=2),
    # biases on q, k, v, o; heads wider than hidden_size / n_heads; another base of the rotary frequencies
    "biases": dict(num_key_value_heads=1, head_dim=32, attention_bias=True, dtype="float32",
                   rope_parameters=rope(rope_theta=500.0)),
    "mistral": dict(model_type="mistral", sliding_window=12),
    "qwen2": dict(model_type="qwen2", intermediate_size=64),
    # windows from the second layer on; GGUF files can't say so
    "qwen2_window": dict(NARROW, model_type="qwen2", use_sliding_window=True, sliding_window=12,
                         max_window_layers=1, no_gguf=True),
    "qwen3": dict(SMALL, model_type="qwen3"),
    # soft caps low enough to bend
    "gemma2": dict(SMALL, model_type="gemma2", query_pre_attn_scalar=32, sliding_window=12, attn_logit_softcapping=5.0,
                   final_logit_softcapping=10.0),
    "gemma3": dict(SMALL, model_type="gemma3_text", head_dim=16, num_hidden_layers=6, query_pre_attn_scalar=16,
                   sliding_window=12, rope_parameters={"sliding_attention": rope(rope_theta=100.0),
                                                       "full_attention": rope("linear", factor=4.0, rope_theta=1000.0)}),
    # 8 of 16 dimensions rotated, longrope beyond SHORT tokens
    "phi3": dict(NARROW, model_type="phi3", sliding_window=24, tie_word_embeddings=False,
                 original_max_position_embeddings=SHORT,
                 rope_parameters=rope("longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.1, 1.3, 1.6],
                                      long_factor=[1.2, 2.0, 4.0, 9.0])),
    "olmo2": dict(NARROW, model_type="olmo2", tie_word_embeddings=False),
    # the fourth layer without rotary positions
    "smollm3": dict(NARROW, model_type="smollm3", num_hidden_layers=4),
    # an epsilon that is felt, so that it must be right for a stream with a residual multiplier
    "granite": dict(NARROW, model_type="granite", embedding_multiplier=0.5, residual_multiplier=0.3,
                    attention_multiplier=0.1, logits_scaling=0.5, rms_norm_eps=0.01),
    "linear": dict(SMALL, rope_parameters=rope("linear", factor=4.0)),
    "dynamic": dict(SMALL, rope_parameters=rope("dynamic", factor=3.0), max_position_embeddings=16, no_gguf=True),
    "llama3": dict(SMALL, rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                               original_max_position_embeddings=32)),
    "yarn": dict(SMALL, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64)),
}
OURS = ("shards", "no_gguf")  # the rest are transformers'
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
GGUF_ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
PERMUTED = ("llama", "mistral", "smollm3", "granite")  # rows of q and k: see rotary_to_gguf


def config_of(name, **sizes):
    options = {key: value for key, value in (SIZES | MODELS[name] | sizes).items() if key not in OURS}
    options.setdefault("rope_parameters", rope())
    return AutoConfig.for_model(**options, attn_implementation="eager")


def is_gemma(config):
    return config.model_type.startswith("gemma")


def random_weights(config, dtype, seed):
    """Large enough that attention is peaked and logits spread over several units."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    weights = {}
    for name, parameter in model.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 0.2 * noise + (0 if is_gemma(config) else 1)
        elif name.endswith("bias"):
            value = 0.5 * noise
        else:
            value = noise * (1.5 / parameter.shape[1] ** 0.5)
        weights[name] = value.to(getattr(torch, dtype))
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return weights


def logits_of(config, weights, tokens):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
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


def permuted_heads(config, name):
    if config.model_type not in PERMUTED:
        return 0
    return config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0


def head_dim_of(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def add_sizes(writer, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type in PERMUTED:
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim_of(config))
    else:
        writer.add_token_list([f"{i}" for i in range(config.vocab_size)])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if config.model_type == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def llama3_factors(config, parameters):
    frequencies = parameters["rope_theta"] ** (-numpy.arange(0, 1, 2 / head_dim_of(config)))
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = numpy.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - kept) / parameters["factor"] + kept)


def add_rope(writer, config):
    parameters = config.rope_parameters.get("full_attention", config.rope_parameters)
    kind = parameters["rope_type"]
    writer.add_rope_freq_base(parameters["rope_theta"])
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(parameters["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config, parameters).astype("f4"))
    if kind == "longrope":
        stretch = config.max_position_embeddings / parameters["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(
            math.sqrt(1 + math.log(stretch) / math.log(parameters["original_max_position_embeddings"])))
        writer.add_rope_dimension_count(int(parameters["partial_rotary_factor"] * head_dim_of(config)))
        writer.add_tensor("rope_factors_long.weight", numpy.array(parameters["long_factor"], "f4"))
        writer.add_tensor("rope_factors_short.weight", numpy.array(parameters["short_factor"], "f4"))
    if config.model_type == "gemma3_text":
        writer.add_float32("gemma3.rope.freq_base_swa", config.rope_parameters["sliding_attention"]["rope_theta"])


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
    architecture = GGUF_ARCHITECTURES.get(config.model_type, config.model_type)
    names = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture], config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    add_sizes(writer, config)
    add_rope(writer, config)
    seen = {}
    for key, value in weights.items():
        array = value.float().numpy()
        gguf_name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        n_heads = permuted_heads(config, key)
        if n_heads:
            array = rotary_to_gguf(array, n_heads)
        if key.endswith("norm.weight") and is_gemma(config):
            array = array + 1
        kind = Type.F32 if array.ndim == 1 else type_of(gguf_name)
        data = random_blocks(array, kind) if kind in RANDOM_BLOCKS else gguf.quants.quantize(numpy.ascontiguousarray(array), kind)
        writer.add_tensor(gguf_name, data, raw_dtype=kind)
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
    model_class = type(AutoModelForCausalLM.from_config(config)).__name__
    written = config.to_dict() | {"architectures": [model_class], "dtype": dtype}
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


def make(name, seed, tokens):
    model = SIZES | MODELS[name]
    config = config_of(name)
    weights = random_weights(config, model["dtype"], seed)
    write_safetensors(HERE / name, config, weights, model["dtype"], model.get("shards", 1))
    if not model.get("no_gguf"):
        write_gguf(HERE / f"{name}.gguf", name, config, weights, lambda _: GGUF_TYPES[model["dtype"]])
    logits = logits_of(config, weights, tokens)
    logits.tofile(HERE / f"{name}.f32")
    if name == "phi3":
        logits_of(config, weights, tokens[:SHORT]).tofile(HERE / "phi3_short.f32")
    print(name, "logits: mean", logits.mean(), "deviation", logits.std(), "largest", abs(logits).max())


def make_quantized(tokens):
    config = config_of("gqa_tied")
    weights = random_weights(config, "float32", 7)
    seen = write_gguf(HERE / "quantized.gguf", "quantized", config, weights, lambda n: QUANTIZED[n.split(".")[-2]])
    logits_of(config, seen, tokens).tofile(HERE / "quantized.f32")
    config = config_of("gqa_tied", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    weights = random_weights(config, "float32", 8)
    seen = write_gguf(HERE / "kquants.gguf", "kquants", config, weights, lambda n: KQUANTS[n.split(".")[-2]])
    logits_of(config, seen, tokens).tofile(HERE / "kquants.f32")


def main():
    wanted = sys.argv[1:] or [*MODELS, "quantized"]
    tokens = numpy.random.default_rng(1).integers(0, N_VOCAB, N_TOKENS).astype("<u4")
    tokens.tofile(HERE / "tokens.u32")
    for seed, name in enumerate(MODELS):
        if name in wanted:
            make(name, seed, tokens)
    if "quantized" in wanted:
        make_quantized(tokens)


main()
