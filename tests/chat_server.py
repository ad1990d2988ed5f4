"""A chat server that misbehaves as it is told, a process of its own: `python chat_server.py PORT [SECONDS]`.

What it does is said by the last message of the user's: JSON `{"id": …, "do": [kinds]}`, one kind a try of that id, the
last one for all that follow; any other text is answered at once, and a product that is asked for worked out, wrongly
where 7 divides it. Each answer takes SECONDS. GET /stats tells what was
asked.
"""

import json
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VLLM = (
    "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input tokens, which "
    "exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
)
VLLM_OLD = (
    "This model's maximum context length is 2048 tokens. However, you requested 3001 tokens (2001 in the messages, "
    "1000 in the completion). Please reduce the length of the messages or completion."
)
VLLM_EDGE = (
    "The decoder prompt (length 512) plus the number of requested output tokens (at least 1) is longer than the "
    "maximum model length of 512. Make sure that `max_model_len` is no smaller than the number of text tokens."
)
VLLM_MAX = (
    "max_tokens=100000 cannot be greater than max_model_len=512. Please request fewer output tokens. "
    "(parameter=max_tokens, value=100000)"
)
LLAMA = {
    "code": 400, "message": "request (4476 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "type": "exceed_context_size_error", "n_prompt_tokens": 4476, "n_ctx": 4096,
}  # fmt: skip
OPENAI = {
    "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
}  # fmt: skip
SGLANG = "The input (9001 tokens) is longer than the model's context length (8192 tokens)."
SGLANG_SUM = (
    "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9001 "
    "tokens: 901 tokens from the input messages and 8100 tokens for the completion."
)
NO_PLACE = (
    "continue_final_message is set but the final message does not appear in the chat after applying the chat template! "
    "This can happen if the chat template deletes portions of the final message."
)
ERRORS: dict[str, tuple[int, Any]] = {
    "500": (500, {"error": {"message": "engine dead"}}),
    "503": (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    "401": (401, {"error": {"message": "Incorrect API key provided: none.", "code": "invalid_api_key"}}),
    "403": (403, {"error": {"message": "Not in\nyour region " + "x" * 500}}),
    "404": (404, {"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}}),
    "400": (400, {"error": {"message": "temperature must not be 0.7 today", "type": "BadRequestError", "code": 400}}),
    "422": (422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}),
    "quota": (429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}),
    "vllm": (400, {"error": {"message": VLLM, "type": "BadRequestError", "param": "input_tokens", "code": 400}}),
    "vllm_old": (400, {"object": "error", "message": VLLM_OLD, "type": "BadRequestError", "code": 400}),
    "vllm_edge": (400, {"error": {"message": VLLM_EDGE, "type": "BadRequestError", "code": 400}}),
    "llama": (400, {"error": LLAMA}),
    "openai": (400, {"error": OPENAI}),
    "sglang": (400, {"object": "error", "message": SGLANG, "type": "BadRequest", "code": 400}),
    "too_large": (413, {"error": {"message": "prompt is too long: 213462 tokens > 200000 maximum"}}),
}


def worked_out(text: str) -> str:
    """Thoughts and an answer, where a text asks for a product."""
    asked = re.search(r"What is (\d+) \* (\d+) \?", text)
    if not asked:
        return ""
    product = int(asked[1]) * int(asked[2])
    said = product + 1 if product % 7 == 0 else product
    return f"<think>\nPlan: piece by piece.\nThat makes {said}.\n</think>\n\n<answer>{said}</answer>\nDone."


class State:
    """What the server was asked so far."""

    lock = threading.Lock()
    inside = most = total = 0
    tries: dict[str, int] = {}  # noqa: RUF012
    bodies: dict[str, Any] = {}  # noqa: RUF012
    key: str | None = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seconds = 0.0

    def do_GET(self) -> None:
        self.say(200, {k: getattr(State, k) for k in ("most", "total", "tries", "bodies", "key")})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with State.lock:
            State.inside += 1
            State.total += 1
            State.most = max(State.most, State.inside)
            State.key = self.headers.get("Authorization")
        try:
            if self.path != "/v1/chat/completions":
                return self.say(404, {"detail": "Not Found"})
            text = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
            if not text.startswith("{"):
                time.sleep(self.seconds)
                return self.chat(worked_out(text) or f"re: {text}")
            script = json.loads(text)
            with State.lock:
                tried = State.tries[script["id"]] = State.tries.get(script["id"], 0) + 1
                State.bodies[script["id"]] = body
            return self.act(script["do"][min(tried, len(script["do"])) - 1], script["id"], body)
        finally:
            with State.lock:
                State.inside -= 1

    def act(self, kind: str, name: str, body: dict[str, Any]) -> None:
        """Answer, or fail, in the way `kind`."""
        time.sleep(self.seconds)
        text = f"re: {name}"
        if kind in ERRORS:
            return self.say(*ERRORS[kind])
        match kind:
            case "ok":
                return self.chat(text)
            case "slow":
                time.sleep(20)
                return self.chat(text)
            case "several":
                return self.chat(text, more=["another", "a third"])
            case "no_usage":
                return self.chat(text, usage=None)
            case "blank":
                return self.chat(None)
            case "length" | "content_filter" | "tool_calls" | "abort":
                return self.chat(text, finish=kind)
            case "counts":  # as many tokens in the prompt as its seed says
                return self.chat(text, prompt=body["seed"])
            case "reasoning" | "reasoning_content":
                return self.chat(f"\n\n{text}", **{kind: "\nlet me see\n"})
            case "cut":
                return self.chat(None, finish="length", reasoning="\nlet me")
        return self.refuse(kind, text, body)

    def refuse(self, kind: str, text: str, body: dict[str, Any]) -> None:
        """Say no, always or to a request that has too much in it."""
        match kind:
            case "429" | "429date":
                date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3))
                return self.say(
                    429, {"error": {"message": "slow down"}}, {"Retry-After": "2" if kind == "429" else date}
                )
            case "moved":
                return self.say(301, b"", {"Location": "https://elsewhere.example/v1/chat/completions"})
            case "no_place":
                return self.say(400, {"error": {"message": NO_PLACE, "type": "BadRequestError", "code": 400}})
            case "sglang_sum" | "vllm_max":  # the prompt fits, but not with max_tokens
                if "max_tokens" in body:
                    message = SGLANG_SUM if kind == "sglang_sum" else VLLM_MAX
                    return self.say(400, {"object": "error", "message": message, "type": "BadRequest", "code": 400})
                return self.chat(text, finish="length")
            case "strict":  # as `transformers serve`
                known = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "generation_config"}
                if unexpected := set(body) - known:
                    return self.say(422, {"detail": f"Unexpected fields in the request: {unexpected}"})
                return self.chat(text)
            case "stricter":  # as OpenAI
                if "top_k" in body:
                    message = "Unrecognized request argument supplied: top_k"
                    return self.say(400, {"error": {"message": message, "type": "invalid_request_error"}})
                return self.chat(text)
        return self.garble(kind, text)

    def garble(self, kind: str, text: str) -> None:
        """What is no answer, or only the beginning of one."""
        match kind:
            case "json":
                return self.say(200, b'{"choices": [{"mess')
            case "empty":
                return self.say(200, {"choices": []})
            case "other":
                return self.say(200, {"result": text})
            case "html":
                return self.say(200, b"<!DOCTYPE html><title>Welcome</title>", kind="text/html")
            case "drip":  # bytes that never stop coming, so that no read times out
                self.start(200, "application/json", 100)
                for _ in range(40):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case "hangup":
                self.close_connection = True
            case "half":
                self.start(200, "application/json", 1000)
                self.wfile.write(b'{"choices": [{"message": {"content": "hal')
                self.close_connection = True
            case _:
                raise ValueError(kind)
        return None

    def chat(
        self, text: str | None, finish: str = "stop", usage: Any = 7, more: Any = (), prompt: int = 0, **fields: str
    ) -> None:
        message = {"role": "assistant", "content": text} | fields
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        choices += [{"index": 1, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"} for t in more]
        answer: dict[str, Any] = {"id": "x", "object": "chat.completion", "model": "m", "choices": choices}
        self.say(200, answer | ({"usage": {"completion_tokens": usage, "prompt_tokens": prompt}} if usage else {}))

    def say(self, status: int, body: Any, headers: Any = (), kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start(status, kind, len(data), headers)
        self.wfile.write(data)

    def start(self, status: int, kind: str, length: int, headers: Any = ()) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are part of the tests."""


if __name__ == "__main__":
    Handler.seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
