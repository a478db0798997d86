"""Any process may be killed at any instant: the client's stream goes on and says what it would have said."""
import conftest
import processes
import pytest

STORY = "Once upon a time, in a small village by the sea,"


@pytest.fixture(scope="module", params=["tcp", "ipc"])
def cluster(request):
    """Six processes that nobody else uses: these tests kill them."""
    yield from conftest.run_cluster(request.param)


def stream(cluster, **options):
    options = {"max_tokens": 80, "temperature": 1, "seed": 21, **options}
    chunks = cluster.client().completions.create(
        model=processes.MODEL_NAME, prompt=STORY, stream=True, extra_body={"ignore_eos": True}, **options
    )
    for chunk in chunks:
        yield chunk.choices[0].index, chunk.choices[0].text


def collect(pieces, texts=None):
    texts = texts or {}
    for index, text in pieces:
        texts[index] = texts.get(index, "") + text
    return texts


@pytest.mark.parametrize("victim", ["executor", "scheduler", "postprocessor", "tokenizer", "drafter"])
def test_a_stream_outlives_what_is_killed_under_it(cluster, victim):
    whole = collect(stream(cluster, n=2))
    pieces = stream(cluster, n=2)
    begun = {}
    for _ in range(20):
        index, text = next(pieces)
        begun[index] = begun.get(index, "") + text
    cluster.processes.pop(victim).kill()
    cluster.start_service(victim)
    assert collect(pieces, begun) == whole
    assert set(whole) == {0, 1} and whole[0] != whole[1]
    cluster.wait_idle()


def test_with_two_executors_one_may_die_and_nobody_waits(cluster):
    arguments = cluster.processes["executor"].popen.args
    at = arguments.index("--admin-port")
    second = cluster.start("executor-2", arguments[:at] + arguments[at + 2 :])
    processes.wait_until(lambda: "model loaded" in second.log(), "it loaded the model")
    wholes = [collect(stream(cluster, seed=seed)) for seed in range(1, 5)]
    running = [stream(cluster, seed=seed) for seed in range(1, 5)]
    begun = [collect([next(pieces)]) for pieces in running]
    cluster.processes.pop("executor").kill()
    assert [collect(pieces, texts) for pieces, texts in zip(running, begun)] == wholes
    cluster.start_service("executor")
    processes.wait_until(lambda: "model loaded" in cluster.processes["executor"].log(), "it loaded the model")
    cluster.processes.pop("executor-2").stop()
    cluster.wait_idle()


def test_a_request_that_waits_is_served_when_the_executor_comes_back(cluster):
    whole = collect(stream(cluster))
    cluster.processes.pop("executor").kill()
    processes.wait_until(lambda: cluster.get("/ready").status_code == 503, "the gateway noticed", 15)
    cluster.start_service("executor")
    cluster.wait_ready(cluster.processes["gateway"])
    assert collect(stream(cluster)) == whole
