"""Throw-away certificates: a CA, a server and a client of it, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """What one CA signed. The server's certificate is for the loopback address."""

    folder: Path
    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        folder,
        *(
            folder / f"{name}.pem"
            for name in ("ca", "server", "server-key", "client", "client-key")
        ),
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made.ca))
    for identity, cert, key in (
        ("127.0.0.1", made.server_cert, made.server_key),
        ("client@example.org", made.client_cert, made.client_key),
    ):
        issued = authority.issue_cert(identity)
        issued.private_key_pem.write_to_path(str(key))
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(cert), append=number > 0)
    return made
