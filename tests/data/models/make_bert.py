"""Makes the tiny random BERTs of the tests, and what transformers computes with them.

bert/ is a BertModel with a tokenizer, bert.gguf the same as llama.cpp's converter writes it, bert_score/ a
BertForSequenceClassification of one label. bert.f32 and bert_score.f32 are their outputs for the first LENGTHS tokens of
tokens.u32, of which the second half is of type 1: of each length the last hidden states' mean, first and last, or the score.
reference.json in both folders has texts and what they give through the tokenizer: embeddings as sentence-transformers
makes them, or scores of pairs.

    pip install torch transformers gguf safetensors numpy
    python make_bert.py
    python make_bert.py --minilm FOLDER   # reference data of all-MiniLM-L6-v2: ../parity/reference/minilm.json
"""

import json
import shutil
import string
import sys
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

HERE = Path(__file__).parent
LENGTHS = (40, 17, 5)
SIZES = dict(vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
             max_position_embeddings=64, type_vocab_size=2, attn_implementation="eager")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the of to in is and it you that for on cat dog sat mat what who red blue fish bird".split()
TEXTS = ["the cat sat on the mat", "a dog", "Fish and BIRD, [SEP] in the red sea; it is 42!", "unusual: \u00e9\u4e2d",
         "you and it " * 15]
QUESTION, DOCUMENTS = "what is the cat?", ["the cat sat on the mat", "a bird", "blue fish: the dog in it [SEP] is red " * 3]
SENTENCES = ["This is an example sentence", "Each sentence is converted",
             "The quick brown fox jumps over the lazy dog, then naps (for a while) in the sun.",
             "def embed(texts: list[str]) -> list[list[float]]:",
             "Die Katze sitzt auf der Matte \u2014 sch\u00f6n! \u4f60\u597d",
             " ".join(["A longer passage is cut into many pieces of words, which all stand for one vector."] * 12)]


def random_weights(model, seed):
    """Large enough that attention is peaked."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in model.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm.weight" in name:
            value = 0.2 * noise + 1
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "position_ids" in name:
            continue
        else:
            value = noise * (1.0 if "embeddings" in name else 1.5 / parameter.shape[1] ** 0.5)
        weights[name] = value.half()
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    return weights


def tokenizer():
    vocab = SPECIAL + WORDS + list(string.ascii_lowercase) + ["##" + c for c in string.ascii_lowercase]
    vocab += list(string.digits) + list(".,;:!?'()")
    vocab += [f"[unused{i}]" for i in range(SIZES["vocab_size"] - len(vocab))]
    assert len(set(vocab)) == SIZES["vocab_size"]
    return vocab, BertTokenizerFast(vocab={word: i for i, word in enumerate(vocab)}, do_lower_case=True)


def write_folder(folder, model, weights, tok):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    save_file(weights, folder / "model.safetensors")
    tok.save_pretrained(folder)


def inputs_of(tokens, n):
    return dict(input_ids=torch.tensor(tokens[None, :n].astype("i8")),
                token_type_ids=torch.tensor([[int(i >= n // 2) for i in range(n)]]))


def write_gguf(path, config, weights, vocab):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([t if t in SPECIAL else t[2:] if t.startswith("##") else "\u2581" + t for t in vocab])
    writer.add_token_types([3 if t in SPECIAL else 1 for t in vocab])
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    for key, value in weights.items():
        if key.startswith("pooler."):
            continue  # the converter leaves it out
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        is_matrix = value.ndim == 2 and name not in ("position_embd.weight", "token_types.weight")
        writer.add_tensor(name, (value if is_matrix else value.float()).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def embed(model, tok, text):
    with torch.no_grad():
        hidden = model(**tok(text, return_tensors="pt", split_special_tokens=True)).last_hidden_state[0].double()
    mean = hidden.mean(0)
    return (mean / mean.norm()).numpy()


def make_embedder(tokens, vocab, tok):
    model = BertModel(BertConfig(**SIZES)).eval()
    weights = random_weights(model, 1)
    write_folder(HERE / "bert", model, weights, tok)
    write_gguf(HERE / "bert.gguf", model.config, weights, vocab)
    with torch.no_grad():
        states = [model(**inputs_of(tokens, n)).last_hidden_state[0].numpy() for n in LENGTHS]
    numpy.stack([[h.mean(0), h[0], h[-1]] for h in states]).astype("<f4").tofile(HERE / "bert.f32")
    lines = [{"text": text, "n_tokens": len(tok(text, split_special_tokens=True).input_ids),
              "embedding": [round(float(x), 6) for x in embed(model, tok, text)]} for text in TEXTS]
    (HERE / "bert" / "reference.json").write_text(json.dumps(lines, indent=1) + "\n")


def make_scorer(tokens, tok):
    model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).eval()
    weights = random_weights(model, 2)
    write_folder(HERE / "bert_score", model, weights, tok)
    with torch.no_grad():
        scores = [model(**inputs_of(tokens, n)).logits[0].numpy() for n in LENGTHS]
        pairs = [model(**tok(QUESTION, d, return_tensors="pt", split_special_tokens=True)).logits[0, 0].double()
                 for d in DOCUMENTS]
    numpy.stack(scores).astype("<f4").tofile(HERE / "bert_score.f32")
    lines = {"query": QUESTION, "documents": DOCUMENTS, "scores": [float(torch.sigmoid(p)) for p in pairs],
             "n_tokens": sum(len(tok(QUESTION, d, split_special_tokens=True).input_ids) for d in DOCUMENTS)}
    (HERE / "bert_score" / "reference.json").write_text(json.dumps(lines, indent=1) + "\n")
    print("scores", scores, pairs)


def make_minilm(folder):
    model, tok = AutoModel.from_pretrained(folder).eval().float(), AutoTokenizer.from_pretrained(folder)
    tok.backend_tokenizer.no_truncation()
    tok.backend_tokenizer.no_padding()
    lines = [{"text": text, "n_tokens": len(tok(text).input_ids),
              "embedding": [round(float(x), 7) for x in embed(model, tok, text)]} for text in SENTENCES]
    (HERE / ".." / "parity" / "reference" / "minilm.json").write_text(json.dumps(lines) + "\n")


def main():
    if sys.argv[1:2] == ["--minilm"]:
        make_minilm(sys.argv[2])
        return
    tokens = numpy.fromfile(HERE / "tokens.u32", "<u4")
    vocab, tok = tokenizer()
    make_embedder(tokens, vocab, tok)
    make_scorer(tokens, tok)


main()
