"""A small hub on this machine that takes uploads of data sets, as `huggingface_hub` sends them."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

COMMIT = "740312add88f781978c0658806c59bc2815b9866"
TOKEN = "hf_of_a_test"
LICENSES = ["apache-2.0", "other"]


@dataclass
class Hub:
    """Where it listens, what was asked of it, and who was to see a new repository."""

    address: str
    folder: Path
    forbidden: str
    asked: list[str] = field(default_factory=list)
    visibility: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their hash


@contextmanager
def upload_hub(folder: Path, forbidden: str = "nobody") -> Iterator[Hub]:
    """Take data sets into `folder`/OWNER/NAME from those with TOKEN, save those of the owner `forbidden`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}", folder, forbidden)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].strip("/").split("/")
        self.hub.asked.append(f"{self.command} /{'/'.join(path)}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and path[0] != "lfs":
            return self.say({"error": "Invalid username or password."}, 401)
        if f"{self.hub.forbidden}/" in self.path:
            return self.say({"error": "You don't have write access"}, 403)
        if path == ["api", "validate-yaml"]:
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            errors = [] if header["license"] in LICENSES else [{"message": f'"license" must be one of {LICENSES}'}]
            return self.say({"errors": errors, "warnings": []}, 400 if errors else 200)
        if path[:3] == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if "preupload" in path:
            modes = [(each["path"], each["path"].endswith(".parquet")) for each in json.loads(body)["files"]]
            return self.say({"files": [
                {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                for name, large in modes
            ]})  # fmt: skip
        if path[-2:] == ["objects", "batch"]:
            return self.say({"transfer": "basic", "objects": [
                {**each, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]})  # fmt: skip
        if "commit" in path:
            return self.commit(self.hub.folder / path[2] / path[3], body)
        return self.say({"error": "not found"}, 404)

    def do_PUT(self) -> None:
        self.hub.stored[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.say({})

    def do_GET(self) -> None:
        self.hub.asked.append(f"GET {self.path}")
        self.say({"id": "me/traces", "sha": COMMIT, "siblings": []})

    do_HEAD = do_GET  # noqa: N815

    def create(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or "me"
        if owner == self.hub.forbidden:
            return self.say({"error": "You don't have the rights to create a dataset under this namespace"}, 403)
        self.hub.visibility = wanted["visibility"]
        return self.say({"url": f"{self.hub.address}/datasets/{owner}/{wanted['name']}"})

    def commit(self, root: Path, body: bytes) -> None:
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                target = root / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                small = line["key"] == "file"
                target.write_bytes(base64.b64decode(value["content"]) if small else self.hub.stored[value["oid"]])
        name = f"{root.parent.name}/{root.name}"
        self.say({"commitUrl": f"{self.hub.address}/datasets/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def say(self, data: object, status: int = 200) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass
