"""Sends an augmented prompt to any endpoint that speaks OpenAI's chat completions, and streams its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx

from headwater.context import Context, Passage
from headwater.errors import ModelEndpointError, SettingsError
from headwater.settings import Settings

__all__ = ["HOW_TO_CONFIGURE", "ChatEndpoint", "Cited", "answer", "stream_answer", "used_passages"]

HOW_TO_CONFIGURE = (
    "no language model is configured: set HEADWATER_LLM_URL (as in http://127.0.0.1:11434/v1) and HEADWATER_LLM_MODEL"
)
_MARK = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")
#: most of an endpoint's own words in a message
_SHOWN_CHARACTERS = 200
#: an event, or an answer that is not streamed, is never so long
_MOST_BYTES = 8 * 1024 * 1024
#: fields of server-sent events beside the data (HTML standard, 9.2.6); a comment has an empty name
_OTHER_FIELDS = ("", "event", "id", "retry")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Cited(NamedTuple):
    """A passage that an answer cites, by its number in the prompt."""

    number: int
    passage: Passage


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """A language model behind ``url``, which ends before ``/chat/completions``."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises SettingsError if none is configured, or its key is none."""
        if settings.llm_url is None or settings.llm_model is None:
            raise SettingsError(HOW_TO_CONFIGURE)
        key = (settings.llm_api_key or "").strip()  # a line end comes along easily from a file
        if not all("!" <= character <= "~" for character in key):
            raise SettingsError("the setting HEADWATER_LLM_API_KEY holds a blank or a letter that no key has: check it")
        return cls(settings.llm_url.rstrip("/"), settings.llm_model, key or None, settings.llm_timeout_s)

    @property
    def shown(self) -> str:
        """For messages: the address without a password."""
        try:
            password = urlsplit(self.url).password
        except ValueError:
            password = None
        return self.url if password is None else self.url.replace(f":{password}@", ":***@", 1)

    def client(self) -> httpx.Client:
        """A proxy of the environment is for other machines."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            is_here = urlsplit(self.url).hostname in _LOOPBACK
        except ValueError:
            is_here = False
        return httpx.Client(timeout=self.timeout_s, headers=headers, trust_env=not is_here)

    def error(self, what: str) -> ModelEndpointError:
        return ModelEndpointError(f"the language model at {self.shown} {what}")

    def quoted(self, said: str) -> str:
        """Words of the endpoint for a message: on one line, not many, and never the key, which some of them repeat."""
        line = " ".join(said.split())
        return (line.replace(self.key, "***") if self.key else line)[:_SHOWN_CHARACTERS]


def answer(context: Context, endpoint: ChatEndpoint) -> Iterator[str | Cited]:
    """The answer as it comes, in pieces of text, then the passages that it cites. Raises as ``stream_answer`` does."""
    pieces = []
    for piece in stream_answer(context, endpoint):
        pieces.append(piece)
        yield piece
    yield from used_passages("".join(pieces), context)


def stream_answer(context: Context, endpoint: ChatEndpoint) -> Iterator[str]:
    """The answer in pieces of text. Raises ModelEndpointError with one sentence if it does not come as it should."""
    body = {"model": endpoint.model, "stream": True, "messages": [{"role": "user", "content": context.prompt}]}
    try:
        with endpoint.client() as http, http.stream("POST", f"{endpoint.url}/chat/completions", json=body) as reply:
            if reply.status_code != httpx.codes.OK:
                reply.read()
                raise _refusal(endpoint, reply)
            yield from _pieces(endpoint, _lines(endpoint, reply.iter_bytes()))
    except httpx.TimeoutException:
        raise endpoint.error(
            f"gave nothing for {endpoint.timeout_s:g} s: see whether it runs, or raise HEADWATER_LLM_TIMEOUT_S"
        ) from None
    except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise endpoint.error(f"cannot be reached ({endpoint.quoted(str(error))}): check HEADWATER_LLM_URL") from None
    except httpx.HTTPError as error:
        reason = endpoint.quoted(str(error)) or type(error).__name__
        raise endpoint.error(f"broke off in the middle of its answer ({reason}): ask again") from None


def used_passages(text: str, context: Context) -> list[Cited]:
    """The passages that an answer cites, in the order of their numbers; a number that no passage has is none."""
    numbers = {int(number) for mark in _MARK.finditer(text) for number in mark[1].split(",")}
    return [Cited(each, context.passages[each - 1]) for each in sorted(numbers) if 0 < each <= len(context.passages)]


# -- the stream ---------------------------------------------------------------------------------------------


def _lines(endpoint: ChatEndpoint, blocks: Iterable[bytes]) -> Iterator[str]:
    """Lines as server-sent events have them. httpx would also cut where a text may have U+2028 or U+0085 inside."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > _MOST_BYTES:
            raise _no_completion(endpoint, rest[:_SHOWN_CHARACTERS].decode("utf-8", "replace"))
        yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole)
    yield rest.decode("utf-8", "replace")


def _pieces(endpoint: ChatEndpoint, lines: Iterable[str]) -> Iterator[str]:
    """Of events, or of one JSON object from an endpoint that does not stream; what it is shows in the body, for some
    call both by other names."""
    streams = said = ended = False
    other: list[str] = []
    for line in lines:
        name, colon, data = line.partition(":")
        if name == "data" and colon:
            streams = True
            if data.strip() == "[DONE]":
                ended = True
                break
            piece, is_last = _event(endpoint, data.strip())
            ended, said = ended or is_last, said or bool(piece)
            if piece:
                yield piece
        elif line.strip() and name not in _OTHER_FIELDS:
            other.append(line)
            if sum(map(len, other)) > _MOST_BYTES:
                break
    if not streams:
        yield _whole(endpoint, "\n".join(other))
    elif not ended:
        raise endpoint.error("broke off in the middle of its answer: ask again")
    elif not said:
        raise endpoint.error("answered without a word: ask again, or see its own log")


def _event(endpoint: ChatEndpoint, data: str) -> tuple[str, bool]:
    """The text of one event, and whether the model says that it is its last."""
    choice = _choice(endpoint, data)
    return _content(endpoint, choice, "delta", data), choice.get("finish_reason") is not None


def _whole(endpoint: ChatEndpoint, data: str) -> str:
    text = _content(endpoint, _choice(endpoint, data), "message", data)
    if not text:
        raise endpoint.error("answered without a word: ask again, or see its own log")
    return text


def _choice(endpoint: ChatEndpoint, data: str) -> dict[str, Any]:
    """The first choice; an empty one if an event has none (it may tell of usage only)."""
    try:
        body: Any = json.loads(data)
        if isinstance(body, dict) and body.get("error"):
            raise endpoint.error(f"failed: {endpoint.quoted(_message(body))}")
        choices = body["choices"]
        choice = choices[0] if choices else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _no_completion(endpoint, data) from None
    if not isinstance(choice, dict):
        raise _no_completion(endpoint, data)
    return choice


def _content(endpoint: ChatEndpoint, choice: dict[str, Any], part: str, data: str) -> str:
    holder = choice.get(part) or {}
    content = holder.get("content") if isinstance(holder, dict) else holder
    if content is not None and not isinstance(content, str):
        raise _no_completion(endpoint, data)
    return content or ""


# -- what goes wrong ----------------------------------------------------------------------------------------


def _no_completion(endpoint: ChatEndpoint, data: str) -> ModelEndpointError:
    shown = repr(endpoint.quoted(data)) if data.strip() else "nothing at all"
    return endpoint.error(f"answered with what is no chat completion ({shown}): check HEADWATER_LLM_URL")


def _refusal(endpoint: ChatEndpoint, reply: httpx.Response) -> ModelEndpointError:
    hints = {
        401: "check HEADWATER_LLM_API_KEY",
        403: "check HEADWATER_LLM_API_KEY",
        404: f"check HEADWATER_LLM_URL and whether it has the model {endpoint.model!r}",
        429: "it is asked too often: wait a little",
    }
    try:
        said = _message(reply.json())
    except (ValueError, RecursionError):
        said = reply.text
    hint = hints.get(reply.status_code, "see its own log")
    return endpoint.error(f"answered {reply.status_code} ({endpoint.quoted(said)}): {hint}")


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or body)
