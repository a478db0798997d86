"""OpenVINO GenAI as a peer of bench_server.py, in its own Python environment: the commands of peer_llama.py, but no
perplexity, which its batching pipeline does not give.

The pipeline reads GGUF itself. All but the number of threads, the size of a step and the prefix cache, which would
answer for the engine, is as it comes.
"""

import json
import sys
import time

import numpy
import openvino
import openvino_genai as lib

STEP_TOKENS = 2048
CACHE_GB = 1


class Engine:
    def __init__(self, path, n_threads, n_sequences):
        scheduling = lib.SchedulerConfig()
        scheduling.cache_size = CACHE_GB
        scheduling.max_num_batched_tokens = STEP_TOKENS
        scheduling.max_num_seqs = n_sequences
        scheduling.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": n_threads}
        self.pipeline = lib.ContinuousBatchingPipeline(path, scheduling, "CPU", properties)
        self.n_requests = 0

    def add(self, prompt, n):
        greedy = lib.GenerationConfig(max_new_tokens=n, do_sample=False, ignore_eos=True)
        self.n_requests += 1
        return self.pipeline.add_request(
            self.n_requests, openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)), greedy
        )

    def decode(self, prompts, n):
        begin = time.perf_counter()
        handles = [self.add(prompt, n) for prompt in prompts]
        answers = [[] for _ in prompts]
        first_s = None
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            for handle, answer in zip(handles, answers):
                while handle.can_read():
                    answer += next(iter(handle.read().values())).generated_ids
            if not first_s and all(answers):
                first_s = time.perf_counter() - begin
        if any(len(answer) != n for answer in answers):
            sys.exit(f"{[len(a) for a in answers]} tokens came, {n} each were asked for")
        return {"first_s": first_s, "total_s": time.perf_counter() - begin, "tokens": answers}


def main():
    model, n_threads, n_sequences = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    engine = Engine(model, n_threads, n_sequences)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "about":
            features = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            reply = {"version": lib.__version__, "features": features}
        elif command["do"] == "perplexity":
            reply = {"perplexity": None}
        else:
            reply = engine.decode(command["prompts"], command.get("n", 1))
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
