"""Every method of the public server: the role it needs, and whether clients may retry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a token permits; each role includes the roles before it."""

    READ = "read"
    TEACH = "teach"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Whether this role includes `needed`."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        role: the lowest role that may call it; None if no token is needed.
        repeatable: whether it is idempotent, so that a client may retry it after a lost connection.
    """

    role: Role | None
    repeatable: bool = False


def kind_of(handler: Any) -> str:
    """Returns the field of a gRPC handler that holds its function, such as `unary_stream`."""
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    return f"{request}_{response}"


# A method without a row is for admins only.
UNKNOWN = Method(Role.ADMIN)
METHODS: Mapping[str, Method] = {
    # Idempotent because the client always sends a request id.
    "/continual.v1.MemoryService/Teach": Method(Role.TEACH, repeatable=True),
    "/continual.v1.MemoryService/TeachBatch": Method(Role.TEACH, repeatable=True),
    "/continual.v1.MemoryService/TeachStream": Method(Role.TEACH, repeatable=True),
    "/continual.v1.MemoryService/GetFact": Method(Role.READ, repeatable=True),
    "/continual.v1.MemoryService/ListFacts": Method(Role.READ, repeatable=True),
    "/continual.v1.MemoryService/Explain": Method(Role.READ, repeatable=True),
    "/continual.v1.MemoryService/WatchEvents": Method(Role.READ, repeatable=True),
    "/continual.v1.MemoryService/RetryFact": Method(Role.TEACH),
    # Forget can remove backups.
    "/continual.v1.MemoryService/Forget": Method(Role.ADMIN),
    "/continual.v1.ModelService/Ask": Method(Role.READ, repeatable=True),
    "/continual.v1.ModelService/Score": Method(Role.READ, repeatable=True),
    "/continual.v1.ModelService/GetStatus": Method(Role.READ, repeatable=True),
    "/continual.v1.ModelService/GetRetention": Method(Role.READ, repeatable=True),
    # Probe stores its results.
    "/continual.v1.ModelService/Probe": Method(Role.TEACH),
    "/continual.v1.AdminService/GetOperation": Method(Role.READ, repeatable=True),
    "/continual.v1.AdminService/ListOperations": Method(Role.READ, repeatable=True),
    "/continual.v1.AdminService/CancelOperation": Method(Role.ADMIN, repeatable=True),
    "/continual.v1.AdminService/ListSnapshots": Method(Role.READ, repeatable=True),
    "/continual.v1.AdminService/VerifySnapshots": Method(Role.ADMIN, repeatable=True),
    "/continual.v1.AdminService/Rollback": Method(Role.ADMIN),
    "/continual.v1.AdminService/CreateSnapshot": Method(Role.ADMIN),
    "/continual.v1.AdminService/PruneSnapshots": Method(Role.ADMIN),
    "/continual.v1.AdminService/PauseLearning": Method(Role.ADMIN, repeatable=True),
    "/continual.v1.AdminService/ResumeLearning": Method(Role.ADMIN, repeatable=True),
    "/continual.v1.AdminService/Compact": Method(Role.ADMIN, repeatable=True),
    "/continual.v1.AdminService/Export": Method(Role.ADMIN),
    "/continual.v1.AdminService/Backup": Method(Role.ADMIN),
    # Supervisors have no token; health only reveals whether the server serves.
    "/grpc.health.v1.Health/Check": Method(None, repeatable=True),
    "/grpc.health.v1.Health/List": Method(None, repeatable=True),
    "/grpc.health.v1.Health/Watch": Method(None, repeatable=True),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Method(
        Role.READ, repeatable=True
    ),
}
