"""llama.cpp as a peer of bench_server.py, in its own Python environment: a line of JSON in, a line of JSON out.

It computes in this process, without HTTP: what it measures is the engine alone. Commands:

    {"do": "about"}                                       its version and what its build uses of this CPU
    {"do": "prefill", "prompts": [[ids]]}                 seconds until the first token is chosen
    {"do": "decode", "prompts": [[ids], ...], "n": 64}    first_s, total_s and the tokens of each prompt
    {"do": "perplexity", "tokens": [ids]}                 of the tokens after the first; null where a peer gives none
"""

import json
import sys
import time

import llama_cpp as lib
import numpy

BATCH = 2048
SEQUENCE_TOKENS = 640
ONE_TOKENS = 4608


@lib.llama_log_callback
def say_nothing(_level, _text, _data):
    pass


class Engine:
    def __init__(self, path, n_threads, n_sequences):
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.one = self.new_context(n_threads, 1, ONE_TOKENS)
        self.many = self.new_context(n_threads, n_sequences, n_sequences * SEQUENCE_TOKENS // 2)
        self.batch = lib.llama_batch_init(BATCH, 0, 1)

    def new_context(self, n_threads, n_sequences, n_tokens):
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = n_tokens
        parameters.n_batch = BATCH
        parameters.n_seq_max = n_sequences
        parameters.n_threads = parameters.n_threads_batch = n_threads
        context = lib.llama_init_from_model(self.model, parameters)
        if not context:
            sys.exit("llama.cpp cannot make a context")
        return context

    def context_for(self, prompts):
        context = self.one if len(prompts) == 1 else self.many
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        return context

    def rows(self, context, rows):
        """Computes (sequence, position, token, wants logits); returns the logits of those that want them."""
        self.batch.n_tokens = len(rows)
        for i, (sequence, position, token, wanted) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
        if lib.llama_decode(context, self.batch) != 0:
            sys.exit("llama_decode failed")
        wanted = [i for i, row in enumerate(rows) if row[3]]
        return [self.logits(context, i) for i in wanted]

    def logits(self, context, i):
        return numpy.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), shape=(self.n_vocab,))

    def prefill(self, context, prompts):
        """The greedy first token of each prompt."""
        rows = [(s, p, t, p == len(prompt) - 1) for s, prompt in enumerate(prompts) for p, t in enumerate(prompt)]
        first = []
        for i in range(0, len(rows), BATCH):
            first += [int(x.argmax()) for x in self.rows(context, rows[i : i + BATCH])]
        return first

    def decode(self, prompts, n):
        context = self.context_for(prompts)
        begin = time.perf_counter()
        answers = [[token] for token in self.prefill(context, prompts)]
        first_s = time.perf_counter() - begin
        for step in range(n - 1):
            rows = [(s, len(prompt) + step, answers[s][-1], True) for s, prompt in enumerate(prompts)]
            for answer, logits in zip(answers, self.rows(context, rows)):
                answer.append(int(logits.argmax()))
        return {"first_s": first_s, "total_s": time.perf_counter() - begin, "tokens": answers}

    def perplexity(self, tokens):
        context = self.context_for([tokens])
        total = 0.0
        rows = self.rows(context, [(0, p, t, True) for p, t in enumerate(tokens[:-1])])
        for logits, token in zip(rows, tokens[1:]):
            wide = logits.astype(numpy.float64)
            top = wide.max()
            total += top + numpy.log(numpy.exp(wide - top).sum()) - wide[token]
        return {"perplexity": float(numpy.exp(total / (len(tokens) - 1)))}


def main():
    model, n_threads, n_sequences = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lib.llama_log_set(say_nothing, None)
    lib.llama_backend_init()
    engine = Engine(model, n_threads, n_sequences)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "about":
            parts = lib.llama_print_system_info().decode().split("|")
            reply = {"version": lib.__version__, "features": [part.strip() for part in parts if "= 1" in part]}
        elif command["do"] == "perplexity":
            reply = engine.perplexity(command["tokens"])
        else:
            reply = engine.decode(command["prompts"], command.get("n", 1))
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
