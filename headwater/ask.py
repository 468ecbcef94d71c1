"""Sends an augmented prompt to any endpoint that speaks OpenAI's chat completions, and streams its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx

from headwater.context import Context, Passage
from headwater.errors import ModelEndpointError, SettingsError
from headwater.settings import Settings

__all__ = ["HOW_TO_CONFIGURE", "stream_answer", "used_passages"]

HOW_TO_CONFIGURE = (
    "no language model is configured: set HEADWATER_LLM_URL (as in http://127.0.0.1:11434/v1) and HEADWATER_LLM_MODEL"
)
_MARK = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")
#: most of an endpoint's own words in a message
_SHOWN_CHARACTERS = 200


def stream_answer(context: Context, settings: Settings) -> Iterator[str]:
    """The answer as it comes, in pieces of text. Raises SettingsError if no endpoint is configured, and
    ModelEndpointError with one sentence if it does not answer as it should."""
    if settings.llm_url is None or settings.llm_model is None:
        raise SettingsError(HOW_TO_CONFIGURE)
    url = f"{settings.llm_url.rstrip('/')}/chat/completions"
    key = settings.llm_api_key
    body = {"model": settings.llm_model, "stream": True, "messages": [{"role": "user", "content": context.prompt}]}
    try:
        with (
            httpx.Client(
                timeout=settings.llm_timeout_s, headers={"Authorization": f"Bearer {key}"} if key else {}
            ) as http,
            http.stream("POST", url, json=body) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise ModelEndpointError(_refusal(url, answer, settings.llm_model))
            yield from _pieces(url, answer)
    except httpx.TimeoutException:
        raise ModelEndpointError(
            f"the language model at {url} gave nothing for {settings.llm_timeout_s:g} s: see whether it runs, or raise "
            "HEADWATER_LLM_TIMEOUT_S"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ModelEndpointError(
            f"the language model at {url} cannot be reached ({error}): check HEADWATER_LLM_URL"
        ) from None


def used_passages(answer: str, context: Context) -> list[tuple[int, Passage]]:
    """The passages that an answer cites, with their numbers, in the order of the numbers."""
    numbers = {int(number) for mark in _MARK.finditer(answer) for number in mark[1].split(",")}
    return [(number, context.passages[number - 1]) for number in sorted(numbers) if 0 < number <= len(context.passages)]


def _pieces(url: str, answer: httpx.Response) -> Iterator[str]:
    """Of server-sent events, or of one JSON object from an endpoint that does not stream."""
    if "text/event-stream" not in answer.headers.get("content-type", ""):
        answer.read()
        yield _text_of(url, answer.text, "message")
        return
    for line in answer.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if piece := _text_of(url, data, "delta"):
            yield piece
    raise ModelEndpointError(f"the language model at {url} broke off in the middle of its answer: ask again")


def _text_of(url: str, data: str, part: str) -> str:
    try:
        body: Any = json.loads(data)
        if isinstance(body, dict) and body.get("error"):
            raise ModelEndpointError(f"the language model at {url} failed: {_message(body)}")
        choices = body["choices"]
        return str((choices[0].get(part) or {}).get("content") or "") if choices else ""
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ModelEndpointError(
            f"the language model at {url} answered with what is no chat completion "
            f"({data[:_SHOWN_CHARACTERS]!r}): check HEADWATER_LLM_URL"
        ) from None


def _refusal(url: str, answer: httpx.Response, model: str) -> str:
    hints = {401: "check HEADWATER_LLM_API_KEY", 403: "check HEADWATER_LLM_API_KEY", 404: "check HEADWATER_LLM_URL and "
             f"whether it has the model {model!r}", 429: "it is asked too often: wait a little"}  # fmt: skip
    try:
        said = _message(answer.json())
    except ValueError:
        said = answer.text
    hint, said = hints.get(answer.status_code, "see its own log"), " ".join(said.split())[:_SHOWN_CHARACTERS]
    return f"the language model at {url} answered {answer.status_code} ({said}): {hint}"


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or body)[:_SHOWN_CHARACTERS]
