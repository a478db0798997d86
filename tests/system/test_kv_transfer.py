"""A prefill and a decode executor as processes of their own, over tcp with CURVE: together they say what one says,
and metrics tell that KV blocks moved."""

from processes import MODEL_NAME, Cluster, free_port, start_serve, wait_until

PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a fox who lived at the edge of a large forest, and every morning it went to the river",
    "List three colours:",
]


def ask(server):
    def one(prompt):
        answer = server.client().completions.create(model=MODEL_NAME, prompt=prompt, max_tokens=24, temperature=0)
        return answer.choices[0].text

    return [one(prompt) for prompt in PROMPTS]


class DisaggregatedCluster(Cluster):
    ROLES = {"executor": "prefill", "executor-2": "decode"}

    def start_service(self, name, *flags):
        if name in self.ROLES:
            endpoint = f"tcp://127.0.0.1:{free_port()}"
            flags += ("--role", self.ROLES[name], "--kv-bind", endpoint, "--bus-peers", self.folder / "peers")
        return super().start_service(name, *flags)


def test_a_prefill_and_a_decode_executor_say_what_one_says_alone(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = start_serve(tmp_path / "one")
    expected = ask(alone)
    alone.stop()
    cluster = DisaggregatedCluster(tmp_path / "two", "tcp", counts={"executor": 2}).start_all()
    try:
        scheduler = cluster.processes["scheduler"]
        wait_until(lambda: sum(line["msg"] == "executor joined" for line in scheduler.lines()) == 2, "both joined")
        assert ask(cluster) == expected
        assert cluster.metric("troupe_kv_handovers_total") == len(PROMPTS)
        assert cluster.metric("troupe_kv_transfers_total", result="ok") == len(PROMPTS)
        assert cluster.metric("troupe_kv_transfers_total", result="failed") == 0
        moved = cluster.metric("troupe_kv_transfer_blocks_total")
        assert moved >= len(PROMPTS)
        assert cluster.metric("troupe_executor_kv_blocks_sent_total") == moved
        assert cluster.metric("troupe_executor_kv_blocks_received_total") == moved
        cluster.wait_idle()
        cluster.processes.pop("executor").kill()
        cluster.admin_ports.pop("executor")
        assert ask(cluster) == expected  # the decode executor alone
        cluster.wait_idle()
    finally:
        cluster.stop()
