"""OpenAI's API through the unmodified openai client."""

import concurrent.futures
import random
import time

import openai
import processes
import pytest

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
STORY = "Once upon a time, in a small village by the sea,"


def chat(server, messages=CAPITAL, **options):
    options = {"model": processes.MODEL_NAME, "max_tokens": 32, "temperature": 0, **options}
    return server.client().chat.completions.create(messages=messages, **options)


def complete(server, prompt=STORY, **options):
    options = {"model": processes.MODEL_NAME, "max_tokens": 24, "temperature": 0, **options}
    return server.client().completions.create(prompt=prompt, **options)


def streamed(chunks):
    """The text of each choice, and how each ended."""
    texts, finishes = {}, {}
    for chunk in chunks:
        for choice in chunk.choices:
            piece = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                assert choice.index not in finishes, "a choice ended twice"
                finishes[choice.index] = choice.finish_reason
    return texts, finishes


def token_ids(server, text):
    return server.post("/tokenize", json={"prompt": text}).json()["tokens"]


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_greedy_answer_knows_the_capital_of_france(serve):
    answer = chat(serve)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.role == "assistant"
    assert answer.object == "chat.completion" and answer.model == processes.MODEL_NAME
    assert answer.id.startswith("chatcmpl-") and abs(answer.created - time.time()) < 60
    usage = answer.usage
    assert usage.prompt_tokens > 10 and 0 < usage.completion_tokens <= 32
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(serve):
    whole = chat(serve, n=2, temperature=0.8, seed=11)
    chunks = list(chat(serve, n=2, temperature=0.8, seed=11, stream=True))
    texts, finishes = streamed(chunks)
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert finishes == {c.index: c.finish_reason for c in whole.choices}
    assert len(chunks) > 8, "the text came at once, not token by token"
    assert len({c.id for c in chunks}) == 1 and {c.object for c in chunks} == {"chat.completion.chunk"}
    first = [next(c for c in chunks if c.choices and c.choices[0].index == i) for i in (0, 1)]
    assert all(c.choices[0].delta.role == "assistant" for c in first)


def test_completions_stream_what_they_say_whole(serve):
    whole = complete(serve)
    assert whole.object == "text_completion" and whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 24
    texts, finishes = streamed(complete(serve, stream=True))
    assert texts == {0: whole.choices[0].text} and finishes == {0: "length"}


def test_several_prompts_are_answered_in_their_order(serve):
    prompts = [STORY, "The capital of Italy is", "2 + 2 ="]
    together = complete(serve, prompts, n=2, temperature=0.7, seed=3, max_tokens=8)
    assert [c.index for c in together.choices] == list(range(6))
    for i, prompt in enumerate(prompts):
        alone = complete(serve, prompt, n=2, temperature=0.7, seed=3, max_tokens=8)
        assert [c.text for c in together.choices[2 * i : 2 * i + 2]] == [c.text for c in alone.choices]
    assert together.usage.prompt_tokens == sum(len(token_ids(serve, p)) for p in prompts)


def test_a_prompt_of_token_ids_is_the_text_it_spells(serve):
    assert complete(serve, token_ids(serve, STORY)).choices[0].text == complete(serve).choices[0].text


def test_usage_is_sent_last_when_asked_for(serve):
    chunks = list(chat(serve, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])
    assert all(c.usage is None for c in chat(serve, stream=True))
    assert chunks[-1].usage.prompt_tokens == chat(serve).usage.prompt_tokens


@pytest.mark.parametrize("limit", [1, 5, 17])
def test_max_tokens_is_kept(serve, limit):
    answer = complete(serve, max_tokens=limit)
    assert answer.usage.completion_tokens == limit and answer.choices[0].finish_reason == "length"
    answer = chat(serve, max_tokens=openai.omit, max_completion_tokens=limit, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == limit


def test_a_system_message_and_content_parts_reach_the_model(serve):
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]
    assert "Paris" in chat(serve, [{"role": "user", "content": parts}]).choices[0].message.content
    pirate = chat(serve, [{"role": "system", "content": "You are a pirate. Say arr."}, *CAPITAL])
    assert pirate.usage.prompt_tokens != chat(serve).usage.prompt_tokens
    assert pirate.choices[0].message.content != chat(serve).choices[0].message.content


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_a_seed_repeats_and_another_does_not(serve):
    first, again, other = (complete(serve, temperature=1, seed=s).choices[0].text for s in (5, 5, 6))
    assert first == again and first != other
    assert complete(serve, temperature=1).choices[0].text != complete(serve, temperature=1).choices[0].text


def test_choices_differ_and_keep_their_order(serve):
    answer = complete(serve, n=4, temperature=1, seed=9)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert len({c.text for c in answer.choices}) == 4
    assert answer.usage.completion_tokens == 4 * 24
    alone = complete(serve, n=1, temperature=1, seed=9)
    assert answer.choices[0].text == alone.choices[0].text, "the first of many is the one of one"


def test_greedy_choices_are_equal(serve):
    assert len({c.text for c in complete(serve, n=3).choices}) == 1


def test_logit_bias_forces_and_bans_tokens(serve):
    token = token_ids(serve, " banana")
    assert len(token) == 1
    forced = complete(serve, logit_bias={str(token[0]): 100}, max_tokens=3)
    assert forced.choices[0].text == " banana banana banana"
    free = complete(serve, max_tokens=1, logprobs=1)
    (chosen,) = token_ids(serve, free.choices[0].text)
    banned = complete(serve, max_tokens=1, logit_bias={str(chosen): -100})
    assert banned.choices[0].text != free.choices[0].text


def test_top_k_of_one_is_greedy(serve):
    hot = complete(serve, temperature=2, seed=1, extra_body={"top_k": 1}).choices[0].text
    assert hot == complete(serve).choices[0].text
    tiny = complete(serve, temperature=2, seed=1, top_p=1e-6).choices[0].text
    assert tiny == hot


def test_penalties_end_a_loop(serve):
    loop = "tick, tock, " * 12
    options = dict(max_tokens=24, logprobs=1)
    plain = complete(serve, loop, **options).choices[0].logprobs.tokens
    fresh = complete(serve, loop, frequency_penalty=2, presence_penalty=2, **options).choices[0].logprobs.tokens
    assert len(set(fresh)) > 2 * len(set(plain))


# ---- stop strings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_answer_and_never_leak(serve, stream):
    full = complete(serve, max_tokens=40).choices[0].text
    stops = [full[start : start + length] for start in range(4, len(full) - 8, 15) for length in (1, 3, 8)]

    def ask(stop):
        answer = complete(serve, max_tokens=40, stop=[stop, "never said at all"], stream=stream)
        if not stream:
            return answer.choices[0].text, answer.choices[0].finish_reason
        texts, finishes = streamed(answer)
        return texts[0], finishes[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for stop, (text, finish) in zip(stops, pool.map(ask, stops)):
            assert text == full[: full.index(stop)] and finish == "stop", f"stop {stop!r}"


def test_the_stop_string_is_handed_out_when_asked_for(serve):
    full = complete(serve, max_tokens=40).choices[0].text
    stop = full[10:14]
    answer = complete(serve, max_tokens=40, stop=stop, extra_body={"include_stop_str_in_output": True})
    assert answer.choices[0].text == full[: full.index(stop) + len(stop)]


# ---- log probabilities -----------------------------------------------------------------------------------------------


def test_chat_logprobs_account_for_the_whole_text(serve):
    answer = chat(serve, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert "".join(e.token for e in entries).startswith(answer.choices[0].message.content)
    for e in entries:
        assert e.logprob <= 0 and len(e.top_logprobs) == 3
        assert bytes(e.bytes).decode() == e.token
        ordered = [t.logprob for t in e.top_logprobs]
        assert ordered == sorted(ordered, reverse=True)
        assert e.token == e.top_logprobs[0].token, "greedy takes the likeliest"
    chunks = chat(serve, logprobs=True, top_logprobs=3, stream=True)
    streamed_entries = [e for c in chunks for choice in c.choices if choice.logprobs for e in choice.logprobs.content]
    assert [(e.token, e.logprob) for e in streamed_entries] == [(e.token, e.logprob) for e in entries]


def test_logprobs_are_of_the_model_not_of_the_sampler(serve):
    token = token_ids(serve, " banana")[0]
    forced = complete(serve, logit_bias={str(token): 100}, max_tokens=1, logprobs=5)
    assert forced.choices[0].logprobs.token_logprobs[0] < -2


def test_echo_with_logprobs_scores_a_prompt_as_evaluation_harnesses_do(serve):
    """lm-evaluation-harness: echo, logprobs=1, max_tokens=1, and the sum over the continuation's tokens."""

    def score(context, continuation):
        whole, n_context = token_ids(serve, context + continuation), len(token_ids(serve, context))
        answer = complete(serve, [whole], echo=True, logprobs=1, max_tokens=1, seed=1)
        logprobs = answer.choices[0].logprobs
        assert answer.choices[0].text.startswith(context + continuation)
        assert len(logprobs.tokens) == len(whole) + 1
        assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
        assert all(isinstance(x, float) and x <= 0 for x in logprobs.token_logprobs[1:])
        offsets = logprobs.text_offset
        assert offsets[0] == 0 and offsets == sorted(offsets)
        assert "".join(logprobs.tokens) == answer.choices[0].text
        return sum(logprobs.token_logprobs[n_context : len(whole)])

    assert score("The capital of France is", " Paris") > score("The capital of France is", " cheese")


def test_scoring_alone_generates_nothing(serve):
    answer = complete(serve, echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].text == STORY and answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == len(token_ids(serve, STORY))


def test_scores_do_not_depend_on_the_prefix_cache(serve):
    fresh = f"{random.random()} {STORY} there lived an old fisherman who had never seen a whale in his life."
    scores = [complete(serve, fresh, echo=True, logprobs=1, max_tokens=1).choices[0].logprobs for _ in range(2)]
    assert scores[0].token_logprobs == scores[1].token_logprobs


# ---- errors ----------------------------------------------------------------------------------------------------------

BAD_FIELDS = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["x"] * 99}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 1000}}, "logit_bias"),
    ({"seed": 1.5}, "seed"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
]


@pytest.mark.parametrize("fields, param", BAD_FIELDS, ids=[f"{p}-{i}" for i, (_, p) in enumerate(BAD_FIELDS)])
def test_a_bad_field_is_named_in_param(serve, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        serve.client().chat.completions.create(
            **{"model": processes.MODEL_NAME, "messages": CAPITAL}, extra_body=fields
        )
    assert refused.value.param == param
    assert param.split("[")[0] in refused.value.body["message"]


def test_an_unknown_model_is_not_found(serve):
    for call in (lambda: chat(serve, model="gpt-9"), lambda: serve.client().models.retrieve("gpt-9")):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.code == "model_not_found" and refused.value.param == "model"
    assert serve.client().models.retrieve(processes.MODEL_NAME).id == processes.MODEL_NAME
    assert [m.id for m in serve.client().models.list()] == [processes.MODEL_NAME]


def test_a_prompt_over_the_context_is_refused(serve):
    for call in (
        lambda: complete(serve, "word " * 9000),
        lambda: chat(serve, [{"role": "user", "content": "word " * 9000}]),
        lambda: complete(serve, max_tokens=100000),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            call()
        assert "8192" in refused.value.body["message"]


def test_token_ids_over_the_vocabulary_are_refused(serve):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(serve, [1, 2, 10**6])
    assert refused.value.param == "prompt"


def test_a_deadline_ends_a_request(serve):
    with pytest.raises(openai.APIStatusError) as refused:
        complete(serve, max_tokens=4000, extra_body={"timeout": 0.3, "ignore_eos": True})
    assert refused.value.status_code == 408
    serve.wait_idle()


# ---- many at once ----------------------------------------------------------------------------------------------------

TOPICS = "the sea,bread,winter,a dog,music,the moon,rivers,glass,tea,trains,honey,sleep,paper,rain,stone,salt".split(
    ","
)


def test_concurrent_streams_equal_sequential_answers(serve):
    def ask(i, **options):
        topic = [{"role": "user", "content": f"Tell me about {TOPICS[i]}."}]
        return chat(serve, topic, temperature=0.9, seed=i, max_tokens=24 + i, **options)

    alone = [ask(i).choices[0].message.content for i in range(len(TOPICS))]
    with concurrent.futures.ThreadPoolExecutor(len(TOPICS)) as pool:
        together = list(pool.map(lambda i: streamed(ask(i, stream=True))[0][0], range(len(TOPICS))))
    assert together == alone


def test_a_client_that_leaves_frees_its_request(serve):
    left = serve.metric("troupe_gateway_clients_gone_total")
    stream = complete(serve, max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert serve.metric("troupe_sequences_running") == 1
    stream.close()
    processes.wait_until(lambda: serve.metric("troupe_sequences_running") == 0, "its sequence ended", 10)
    assert serve.metric("troupe_gateway_clients_gone_total") == left + 1
    serve.wait_idle()


def test_a_client_that_leaves_without_streaming_frees_its_request_too(serve):
    with pytest.raises(openai.APITimeoutError):
        body = {"ignore_eos": True}
        serve.client(timeout=0.7).completions.create(
            model=processes.MODEL_NAME, prompt=STORY, max_tokens=4000, extra_body=body
        )
    serve.wait_idle()


def test_many_streams_with_random_cancels_all_end(serve):
    """Prompts and answers of many lengths, stop strings, and clients that leave early."""
    random_of = random.Random(1)
    plans = [
        {
            "prompt": f"{STORY * random_of.randint(1, 12)} {i}",
            "max_tokens": random_of.choice([1, 7, 16, 40, 90]),
            "stop": random_of.choice([None, None, ".", [" the", "\n"]]),
            "leave_after": random_of.choice([None, None, 1, 3, 10]),
            "seed": i,
        }
        for i in range(64)
    ]

    def run(plan):
        plan = dict(plan)
        leave_after, finish = plan.pop("leave_after"), None
        stream = complete(serve, temperature=1, stream=True, **plan)
        for i, chunk in enumerate(stream):
            if i == leave_after:
                stream.close()
                return "left"
            finish = chunk.choices[0].finish_reason if chunk.choices else finish
        return finish

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        ends = list(pool.map(run, plans))
    for plan, end in zip(plans, ends):
        left, stopped = plan["leave_after"] is not None and end == "left", plan["stop"] is not None and end == "stop"
        assert left or stopped or end in ("length", "stop"), plan
    assert {"left", "length", "stop"} == set(ends)
    serve.wait_idle()
    assert "Paris" in chat(serve).choices[0].message.content


# ---- one process or six ----------------------------------------------------------------------------------------------

SAME = [
    dict(),
    dict(temperature=1, seed=42, n=2),
    dict(temperature=0.7, seed=7, top_p=0.8, frequency_penalty=0.5),
    dict(max_tokens=60, stop=["France", "\n"]),
]


@pytest.mark.parametrize("which", ["cluster", "ipc_cluster"])
def test_services_apart_answer_as_one_process_does(serve, which, request):
    other = request.getfixturevalue(which)
    for options in SAME:
        for ask in (chat, complete):
            here, there = ask(serve, **options), ask(other, **options)
            assert [c.model_dump() for c in here.choices] == [c.model_dump() for c in there.choices], options
            here_usage, there_usage = here.usage, there.usage
            assert here_usage.prompt_tokens == there_usage.prompt_tokens
            assert here_usage.completion_tokens == there_usage.completion_tokens


def test_services_apart_serve_many_streams(cluster):
    def run(seed):
        return streamed(complete(cluster, temperature=1, seed=seed, max_tokens=16, stream=True))[0][0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(run, range(16)))
    assert texts == [complete(cluster, temperature=1, seed=i, max_tokens=16).choices[0].text for i in range(16)]
    cluster.wait_idle()


# ---- what only this server has ----


def test_drafts_change_the_speed_and_never_the_text(serve):
    repeating = "one two three four five six seven eight nine ten " * 4
    for options in (dict(), dict(temperature=1, seed=3), dict(temperature=0.7, seed=4, top_p=0.9, n=2)):
        plain = complete(serve, repeating, max_tokens=40, **options)
        drafted = serve.metric("troupe_draft_tokens_total"), serve.metric("troupe_draft_tokens_accepted_total")
        fast = complete(serve, repeating, max_tokens=40, extra_body={"draft_tokens": 4}, **options)
        assert [c.text for c in fast.choices] == [c.text for c in plain.choices]
        assert serve.metric("troupe_draft_tokens_total") > drafted[0], "nothing was drafted"
        if not options:
            assert serve.metric("troupe_draft_tokens_accepted_total") > drafted[1], "nothing was accepted"


def test_beam_search_finds_what_is_likelier_than_greedy(serve):
    def likelihood(text):
        prompt = token_ids(serve, STORY)
        scored = complete(serve, prompt + token_ids(serve, text), echo=True, logprobs=1, max_tokens=0)
        return sum(scored.choices[0].logprobs.token_logprobs[len(prompt) :])

    search = {"use_beam_search": True, "beam_width": 6, "ignore_eos": True}
    beams = complete(serve, n=3, max_tokens=12, extra_body=search)
    texts = [c.text for c in beams.choices]
    assert len(set(texts)) == 3
    scores = [likelihood(t) for t in texts]
    greedy = complete(serve, max_tokens=12, extra_body={"ignore_eos": True})
    assert scores[0] >= likelihood(greedy.choices[0].text) - 0.01
    reported = complete(serve, n=3, max_tokens=12, logprobs=2, extra_body=search)
    assert [c.text for c in reported.choices] == texts
    for choice, score in zip(reported.choices, scores):
        assert len(choice.logprobs.token_logprobs) == 12 and len(choice.logprobs.top_logprobs[0]) == 2
        assert sum(choice.logprobs.token_logprobs) == pytest.approx(score, abs=0.01)
    serve.wait_idle()


def test_beam_search_heeds_what_a_request_wishes_for_its_logits(serve):
    search = {"use_beam_search": True, "beam_width": 4, "ignore_eos": True}
    the, sea = token_ids(serve, " the")[0], token_ids(serve, " sea")[0]
    biased = complete(serve, max_tokens=12, logit_bias={str(the): -100, str(sea): 100}, extra_body=search)
    assert " the" not in biased.choices[0].text and biased.choices[0].text.count(" sea") == 12
    fresh = complete(serve, max_tokens=24, extra_body={**search, "no_repeat_ngram_size": 1})
    ids = token_ids(serve, fresh.choices[0].text)
    assert len(set(ids)) == len(ids)
    with pytest.raises(openai.BadRequestError) as refused:
        complete(serve, logprobs=1, frequency_penalty=1, extra_body=search)
    assert refused.value.param == "logprobs"
    serve.wait_idle()


def test_a_long_prompt_is_computed_in_chunks_and_cached_for_the_next(serve):
    long = [{"role": "user", "content": " ".join(f"Item {i} costs {i * 7 % 100} coins." for i in range(120))}]
    first, second = chat(serve, long, max_tokens=12), chat(serve, long, max_tokens=12)
    assert first.usage.prompt_tokens > 1000
    assert second.choices[0].message.content == first.choices[0].message.content
    assert second.usage.prompt_tokens_details.cached_tokens > 900


def test_priorities_and_sessions_are_taken(serve):
    for body in ({"priority": -5}, {"priority": 5}, {"prompt_cache_key": "talk-1"}):
        assert "Paris" in chat(serve, extra_body=body).choices[0].message.content
