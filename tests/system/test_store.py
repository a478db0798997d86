"""Redis may be lost: nothing that runs stops, nothing new is refused, and the loss can be seen."""

import concurrent.futures

import processes

STORY = "Once upon a time, in a small village by the sea,"


def stream(cluster, **options):
    return cluster.client().completions.create(
        model=processes.MODEL_NAME, prompt=STORY, temperature=1, stream=True, extra_body={"ignore_eos": True}, **options
    )


def text_of(chunks):
    return "".join(chunk.choices[0].text for chunk in chunks)


def degraded(cluster, value):
    processes.wait_until(
        lambda: cluster.metric("troupe_store_degraded") == value, f"troupe_store_degraded is {value}", 30
    )


def test_without_redis_requests_succeed_and_the_gauge_tells(cluster):
    degraded(cluster, 0)
    whole = text_of(stream(cluster, seed=1, max_tokens=60))
    running = iter(stream(cluster, seed=1, max_tokens=60))
    begun = next(running).choices[0].text
    cluster.processes.pop("redis").kill()
    assert begun + text_of(running) == whole, "a running request noticed that Redis is gone"
    degraded(cluster, 1)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda seed: text_of(stream(cluster, seed=seed, max_tokens=60)), [1, 1, 2, 3]))
    assert texts[0] == texts[1] == whole and len(set(texts)) == 3
    assert cluster.metric("troupe_store_outages_total") >= 1

    cluster.start_redis()
    degraded(cluster, 0)
    assert text_of(stream(cluster, seed=1, max_tokens=60)) == whole
    cluster.wait_idle()


def test_requests_of_a_session_are_served_with_and_without_a_hint(cluster):
    """A session's requests are served whether or not a hint is found."""
    for _ in range(3):
        answer = cluster.client().completions.create(
            model=processes.MODEL_NAME, prompt=STORY, max_tokens=4, extra_body={"prompt_cache_key": "session-7"}
        )
        assert answer.usage.completion_tokens == 4
