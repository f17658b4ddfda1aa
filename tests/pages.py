"""Pages of the documentation as tests read and run them."""

import re

import httpx2


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in their order, without their fences."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block, a line each, continuation lines joined."""
    return re.sub(r" \\\n\s*", " ", block).strip().splitlines()


def aimed(text: str, client: httpx2.Client) -> str:
    """A command or program of a page, sent to the client's server; its curl fails where the server refuses."""
    address = f"{client.base_url.host}:{client.base_url.port}"
    return text.replace("127.0.0.1:8000", address).replace("curl -s", "curl -sS --fail-with-body")
