"""`python -m bench.peers.milvus_server FOLDER PORT [SESSION_SECONDS]`: Milvus standalone, in this process.

The PyPI package `milvus` unpacks its binary and writes its configuration under FOLDER; then this process becomes the
server, so that whoever started it can signal and pin it, and it ends with its parent. Its other ports are free ones,
those of the etcd within it too, which knows no other way to be told than a file of its own: a Milvus that runs here
already is not in the way. SESSION_SECONDS is how long its own parts hold a silent one for alive, 30 if not told: one
that is paused (SIGSTOP) for longer gives up, and one that was killed starts again only when its last session has ended.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import milvus

from services.local.ports import free_ports


class _Config(milvus.MilvusServerConfig):
    def try_bind_port(self, port: int) -> socket.socket | None:
        """Tells whether a port is free as the server will see it, which minds no lingering connections of the last."""
        probe = socket.socket()
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            probe.close()
            return None
        return probe


def main() -> None:
    """Command line entry."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    ports = [number for number in free_ports(15) if number != port][:14]
    config = _Config(data_dir=str(folder))
    others = [name for name in config.configurable_items if name.endswith("_port") and name != "proxy_port"]
    config.update(proxy_port=port, **dict(zip(others, ports, strict=False)))
    config.resolve()
    etcd = folder / "configs" / "etcd.yaml"
    etcd.write_text(_etcd_config(folder, int(config.get("etcd_port")), ports[-2]))
    milvus._initialize_data_files(str(folder))
    if len(sys.argv) > 3:
        _set_session(folder / "configs" / "milvus.yaml", int(sys.argv[3]))
    binary = folder / "bin" / "milvus"
    environment = {
        **os.environ,
        "DEPLOY_MODE": "STANDALONE",
        "ETCD_CONFIG_PATH": str(etcd),
        "METRICS_PORT": str(ports[-1]),
        "MILVUS_RUN_DIR": str(folder / "run"),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(binary.parent), os.environ.get("LD_LIBRARY_PATH")))),
    }
    os.chdir(folder)
    os.execve(binary, [str(binary), "run", "standalone"], environment)


def _set_session(settings: Path, seconds: int) -> None:
    text, found = re.subn(r"(\n  session:\n    ttl: )\d+", rf"\g<1>{seconds}", settings.read_text())
    if found != 1:
        sys.exit(f"{settings} has no session.ttl where this version of Milvus is expected to have it")
    settings.write_text(text)


def _etcd_config(folder: Path, client_port: int, peer_port: int) -> str:
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return (
        f"name: default\ndata-dir: {folder / 'data' / 'etcd.data'}\n"
        f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n"
    )


if __name__ == "__main__":
    main()
