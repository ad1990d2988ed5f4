"""A small hub on this machine that speaks as much of the Hugging Face hub's protocol as `datasets` needs to read."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "740312add88f781978c0658806c59bc2815b9866"


@contextmanager
def hub(folder: Path, gated: str = "") -> Iterator[str]:
    """Serve the data sets `folder`/OWNER/NAME, all at COMMIT; yields the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            api = parts[0] == "api"
            owner_name, rest = "/".join(parts[api + 1 : api + 3]), parts[api + 3 :]
            root = folder / owner_name
            if owner_name == gated:
                return self.say(401, error="GatedRepo")
            if len(parts) < 3 or not root.is_dir():
                return self.say(401, error="RepoNotFound")  # the hub does not tell what is missing from what is private
            if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                return self.say(404, error="RevisionNotFound")
            path = root.joinpath(*rest[2:])
            if not api:
                return self.file(path) if path.is_file() else self.say(404, error="EntryNotFound")
            if rest[:1] == ["tree"]:
                entries = sorted(path.iterdir()) if path.is_dir() else []
                return self.say(200, json.dumps([entry(each, root) for each in entries]).encode())
            return self.say(200, json.dumps({"id": owner_name, "sha": COMMIT, "siblings": []}).encode())

        do_HEAD = do_POST = do_GET  # noqa: N815

        def file(self, path: Path) -> None:
            data = path.read_bytes()
            etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
            asked = self.headers.get("Range")
            if asked and self.command == "GET":
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last or len(data)), len(data) - 1)
                etag["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                return self.say(206, data[start : end + 1], **etag)
            return self.say(200, data, **etag)

        def say(self, status: int, data: bytes = b"", error: str = "", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"X-Repo-Commit": COMMIT, "X-Error-Code": error, **headers}.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def entry(path: Path, root: Path) -> dict[str, Any]:
    """A file or folder as the hub lists it."""
    size = path.stat().st_size if path.is_file() else 0
    kind = "directory" if path.is_dir() else "file"
    oid = hashlib.sha1(str(path).encode()).hexdigest()
    return {"type": kind, "oid": oid, "size": size, "path": str(path.relative_to(root))}
