"""The pages for people, in a real browser."""

import os
import re
from pathlib import Path

import pytest

from browser import Browser
from processes import wait_until

PHONE, DESKTOP = 360, 1200
SHOTS = os.environ.get("TROUPE_SCREENSHOTS")  # a folder, for a person who wants to see


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    b = Browser(tmp_path_factory.mktemp("chromium"))
    yield b
    b.close()


def shoot(page, name):
    if SHOTS:
        page.screenshot(Path(SHOTS) / f"{name}.png")


def ask(page, text):
    page.js("document.querySelector('#question').focus()")
    page.type(text)
    page.press_enter()


def answer(page, n):
    """The text of the nth answer (from 1), when it is complete."""
    page.wait(f"document.querySelectorAll('.turn.assistant .note').length >= {n}")
    return page.js(f"document.querySelectorAll('.turn.assistant .text')[{n - 1}].textContent")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_chat_streams_and_what_is_said_stays_text(serve, browser, width):
    page = browser.page(serve.url + "/", width, dark=width == PHONE)
    page.wait("document.querySelector('#model').value === 'demo'")
    page.js(
        """(() => {
        window.sizes = new Set();
        const look = () => sizes.add(document.querySelector('.turn.assistant .text')?.textContent.length);
        new MutationObserver(look).observe(document.querySelector('#talk'), {childList: true, subtree: true});
        document.querySelector('#temperature').value = 0;
        document.querySelector('#max-tokens').value = 24;
    })()"""
    )
    typed = "<b>Name</b> three colours. <img src=x onerror=alert(1)>"
    ask(page, typed)
    first = answer(page, 1)
    assert len(first) > 10
    assert page.js("sizes.size") > 5, "the answer did not come in pieces"
    assert page.text(".turn.user .text") == typed
    assert page.js("document.querySelectorAll('#talk :is(b, img, script)').length") == 0
    assert re.search(r"\d+ tokens in ", page.text(".turn.assistant .note"))
    ask(page, "And one more?")
    answer(page, 2)
    assert page.js("document.querySelectorAll('.turn').length") == 4
    assert page.fits()
    shoot(page, f"chat-{width}")
    assert page.faults == []


def test_stop_ends_the_answer_and_its_computation(serve, browser):
    page = browser.page(serve.url + "/", DESKTOP)
    page.wait("document.querySelector('#model').value === 'demo'")
    page.js("document.querySelector('#max-tokens').value = 1900")
    ask(page, "Write a long story about the sea.")
    page.wait("document.querySelector('.turn.assistant .text')?.textContent.length > 20")
    shoot(page, "chat-streaming")
    page.click("#stop")
    assert answer(page, 1)
    assert page.text(".turn.assistant .note") == "Stopped."
    assert page.js("document.querySelector('#stop').hidden && !document.querySelector('#send').hidden")
    serve.wait_idle()
    assert page.js("document.activeElement.id") == "question"
    assert page.faults == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_status_shows_the_executor_and_what_changes(serve, browser, width):
    page = browser.page(serve.url + "/status", width, height=1000, dark=width == DESKTOP)
    page.wait("document.querySelectorAll('#executors tbody tr').length === 1")
    assert page.js("document.querySelector('#executors .mark').textContent") == "ready"
    assert "1 of 1 executor ready" in page.text("#summary")
    roles = page.js("[...document.querySelectorAll('#nodes tbody th')].map(th => th.textContent)")
    assert roles == ["drafter", "executor", "gateway", "postprocessor", "scheduler", "tokenizer"]
    page.js(
        """(() => {
        window.seen = {rate: 0, running: 0, streams: 0, points: 0};
        const number = (id) => Number(document.getElementById(id).textContent);
        new MutationObserver(() => {
            for (const id of ['rate', 'running', 'streams']) seen[id] = Math.max(seen[id], number(id));
            seen.points = document.querySelector('#spark polyline').points.length;
        }).observe(document.body, {childList: true, subtree: true, characterData: true});
    })()"""
    )
    messages = [{"role": "user", "content": "Count from one to a thousand."}]
    client = serve.client()
    stream = client.chat.completions.create(
        model="demo", messages=messages, stream=True, max_tokens=1900, extra_body={"ignore_eos": True}
    )
    taken = iter(stream)
    next(taken)
    page.wait("seen.running === 1 && seen.streams === 1 && seen.rate > 0 && seen.points > 1")
    shoot(page, f"status-{width}")
    assert page.fits()
    stream.close()
    page.wait("document.getElementById('running').textContent === '0'")
    serve.wait_idle()
    assert page.faults == []


def test_with_keys_the_pages_ask_for_one_and_keep_it_in_the_tab(start_serve, browser, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret-key somebody\n")
    keys.chmod(0o600)
    server = start_serve("--api-key-file", keys)
    assert server.get("/status.json").status_code == 401
    page = browser.page(server.url + "/status", DESKTOP)
    page.wait("!document.querySelector('#unlock').hidden")
    assert page.text("#notice") == "The server asks for an API key."
    page.js("document.querySelector('#key').focus()")
    page.type("secret-key")
    shoot(page, "status-locked")
    page.press_enter()
    page.wait("document.querySelectorAll('#executors tbody tr').length === 1")
    assert page.js("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.click("nav a")
    page.wait("document.querySelector('#model')?.value === 'demo'")
    assert [f for f in page.faults if "401" not in f] == []
    wait_until(lambda: server.get("/health").status_code == 200, "the server is well")


def test_a_failure_is_a_sentence_and_the_question_comes_back(start_serve, browser):
    server = start_serve()
    page = browser.page(server.url + "/", PHONE)
    page.wait("document.querySelector('#model').value === 'demo'")
    server.stop()
    ask(page, "Is anybody there?")
    page.wait("!document.querySelector('#notice').hidden")
    assert page.text("#notice") == "The server can't be reached."
    assert page.js("document.querySelector('#question').value") == "Is anybody there?"
    assert page.js("document.querySelectorAll('.turn').length") == 0
    shoot(page, "chat-error")
