"""Computes what transformers says about the passages here, for tests/parity/test_model_parity.c.

The GGUF file's weights are dequantised to float32 and run by torch on the CPU, so the reference has no arithmetic of ours in it.
For each passages/NAME.txt writes reference/NAME.ref, little-endian:

    u32  n_tokens, n_vocab, n_top
    u32  tokens[n_tokens]              the passage, cut to 240 tokens
    u32  top_tokens[n_tokens][n_top]   most likely next tokens, by falling logit
    f32  top_logits[n_tokens][n_top]
    f32  logprobs[n_tokens]            of tokens[i + 1] after tokens[0..i]; the last is 0
    f32  logits[n_vocab]               after the last token

    pip install torch transformers gguf tokenizers numpy
    python make_reference.py ../../../models/SmolLM2-135M-Instruct-Q4_1.gguf
"""

import struct
import sys
from pathlib import Path

import gguf
import numpy
import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
N_TOP, N_TOKENS_MAX = 8, 240
HF_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "token_embd": "model.embed_tokens", "output_norm": "model.norm",
}


def rotary_from_gguf(array, n_heads):
    """Neighbouring rows of a head become rows (i, i + n/2)."""
    shape = array.shape
    return array.reshape(n_heads, shape[0] // n_heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def hf_name(name):
    parts = name.split(".")
    prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    return f"{prefix}{HF_NAMES[parts[-2]]}.{parts[-1]}"


def load(reader):
    value = lambda key: reader.fields[f"llama.{key}"].contents()
    config = LlamaConfig(
        vocab_size=value("vocab_size"), hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"), num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"), max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")}, attn_implementation="eager")
    model = LlamaForCausalLM(config).float().eval()
    weights = {}
    for tensor in reader.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        n_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(tensor.name.split(".")[-2])
        weights[hf_name(tensor.name)] = torch.from_numpy((rotary_from_gguf(array, n_heads) if n_heads else array).copy())
    missing = model.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys, missing
    model.tie_weights()
    return model


def load_tokenizer(reader):
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ", 1)) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


def main(path):
    reader = gguf.GGUFReader(path)
    model, tokenizer = load(reader), load_tokenizer(reader)
    (HERE / "reference").mkdir(exist_ok=True)
    for passage in sorted((HERE / "passages").glob("*.txt")):
        tokens = tokenizer.encode(passage.read_text(encoding="utf-8")).ids[:N_TOKENS_MAX]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].float()
        top = logits.topk(N_TOP)
        logprobs = torch.log_softmax(logits.double(), dim=1)[range(len(tokens) - 1), tokens[1:]].numpy()
        with open(HERE / "reference" / f"{passage.stem}.ref", "wb") as out:
            out.write(struct.pack("<3I", len(tokens), logits.shape[1], N_TOP))
            out.write(numpy.asarray(tokens, "<u4").tobytes())
            out.write(top.indices.numpy().astype("<u4").tobytes())
            out.write(top.values.numpy().astype("<f4").tobytes())
            out.write(numpy.append(logprobs, 0).astype("<f4").tobytes())
            out.write(logits[-1].numpy().astype("<f4").tobytes())
        print(f"{passage.stem}: {len(tokens)} tokens, perplexity {numpy.exp(-logprobs.mean()):.3f}")


main(sys.argv[1])
