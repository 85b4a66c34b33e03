"""Low: a data folder on a network file system is refused unless it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import ServeSettings
from agent.errors import ConfigError
from agent.server import app
from agent.server.data import file_systems
from agent.server.data.file_systems import file_system_of, kind_in, require_local

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:30 / /srv rw master:1 - nfs4 server:/export rw,vers=4.2
25 24 8:1 / /srv/local rw - xfs /dev/sda1 rw
26 22 0:31 / /mnt/a\\040b\\134c rw - fuse.sshfs host: rw
27 22 0:32 / /over rw - autofs systemd-1 rw
28 27 0:33 / /over rw - cifs //host/share rw
no mount at all
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/memory", "ext4"),
        ("/proc/self", "proc"),
        ("/srv", "nfs4"),
        ("/srv/memory", "nfs4"),
        ("/srvmemory", "ext4"),  # a name that only begins alike
        ("/srv/local/memory", "xfs"),
        ("/mnt/a b\\c/memory", "fuse.sshfs"),
        ("/over/memory", "cifs"),  # the later of two
    ],
)
def test_the_innermost_mount_counts(path: str, kind: str) -> None:
    assert kind_in(MOUNTS, Path(path)) == kind


def test_the_mounts_of_this_machine_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(tmp_path) not in ("", "proc")
    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "none")
    assert file_system_of(tmp_path) == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"])
async def test_a_server_refuses_a_network_file_system_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 0:1 / {tmp_path.resolve()} rw - {kind} server:/ rw\n")
    monkeypatch.setattr(file_systems, "MOUNTS", mounts)
    data = tmp_path / "new" / "data"
    settings = ServeSettings(listen="127.0.0.1:0", data=data, model="tiny")
    with pytest.raises(ConfigError, match=rf"{kind}, a network file system.*--allow-network"):
        await app.serve(settings, lambda address: None)
    assert not data.parent.exists()
    require_local(data, allow_network=True)


def test_a_local_disk_is_fine(tmp_path: Path) -> None:
    require_local(tmp_path)
