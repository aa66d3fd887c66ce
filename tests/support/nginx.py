"""An nginx with the server block that a page of the docs recommends."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import textwrap
from pathlib import Path

from tests.rig.base import eventually
from tests.support import ROOT
from tests.support.ports import free_port

TLS = Path(__file__).parent / "tls"


def why_not() -> str | None:
    """Return the reason why there can't be one here."""
    return None if shutil.which("nginx") else "no nginx (apt install nginx-light)"


def server_block(page: str) -> str:
    """Return the one block of nginx's configuration on a page of the docs."""
    (block,) = re.findall(
        r"^\.\. code-block:: nginx\n\n((?:   .*\n|\n)+)", (ROOT / "docs" / page).read_text(), re.MULTILINE
    )
    return textwrap.dedent(block)


class Nginx:
    """``address`` is where it speaks TLS. Each pair of ``replaced`` is a text of the page and the one for this test."""

    def __init__(self, folder: Path, host: str, page: str, replaced: dict[str, str]) -> None:
        self.address = f"{host}:{free_port()}"
        block = server_block(page)
        (name,) = re.findall(r"server_name (\S+);", block)
        live = f"/etc/letsencrypt/live/{name}"
        paths = {f"{live}/fullchain.pem": str(TLS / "one.pem"), f"{live}/privkey.pem": str(TLS / "one.key")}
        for old, new in {"listen 443": f"listen {self.address}", **paths, **replaced}.items():
            assert block.count(old) == 1, old
            block = block.replace(old, new)
        temporary = "\n".join(
            f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.log = folder / "nginx.log"
        configuration = folder / "nginx.conf"
        configuration.write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log {self.log}; user root;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\n{block}}}\n"
        )
        self._process = subprocess.Popen(["nginx", "-e", str(self.log), "-c", str(configuration)])
        try:
            eventually(self._is_open)
        except AssertionError:
            self.close()
            raise AssertionError(self.log.read_text()) from None

    def _is_open(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as sock:
            return sock.connect_ex((host, int(port))) == 0

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
