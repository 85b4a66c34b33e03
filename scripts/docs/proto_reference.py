"""The reference of the gRPC interface, from the comments in proto/."""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from scripts.docs.markdown import code, table

PACKAGE = "continual.v1"
# Numbers of the fields of a `FileDescriptorProto` and of what is inside it, which make up the paths
# of comments.
MESSAGE, ENUM, SERVICE = 4, 5, 6
FIELD, NESTED, NESTED_ENUM = 2, 3, 4
VALUE = METHOD = 2

Comments = dict[tuple[int, ...], str]


def proto_page(proto: Path) -> str:
    """Markdown: services with their methods, then messages and enums.

    Args:
        proto: folder that holds `continual/v1`.
    """
    files = _parsed(proto)
    services: list[str] = []
    types: list[str] = []
    for file in files:
        comments = _comments(file)
        for index, service in enumerate(file.service):
            services += _service(service, (SERVICE, index), comments)
        for index, message in enumerate(file.message_type):
            types += _message(message, "", (MESSAGE, index), comments)
        for index, enum in enumerate(file.enum_type):
            types += _enum(enum, "", (ENUM, index), comments)
    parts = [
        "# gRPC",
        f"Made from the comments in `proto/`: the package `{PACKAGE}`. Beside these services a"
        " server has the standard health service and reflection.",
        *services,
        "## Messages",
        *types,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parsed(proto: Path) -> Sequence[descriptor_pb2.FileDescriptorProto]:
    sources = sorted(proto.joinpath(*PACKAGE.split(".")).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        known = importlib.resources.files("grpc_tools") / "_proto"  # google/protobuf/*.proto
        arguments = ["protoc", f"-I{proto}", f"-I{known}", "--include_source_info"]
        arguments.append(f"--descriptor_set_out={out}")
        if protoc.main([*arguments, *map(str, sources)]) != 0:
            raise ValueError(f"protoc cannot read {proto}")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Comments:
    return {
        tuple(location.path): location.leading_comments + location.trailing_comments
        for location in file.source_code_info.location
    }


def _text(comment: str) -> str:
    """Paragraphs as they are, and indented lists as preformatted text."""
    paragraphs = []
    for paragraph in comment.split("\n\n"):
        lines = [line.removeprefix(" ") for line in paragraph.splitlines()]
        plain = [line for line in lines if not line.startswith("  ")]
        listed = [line.strip() for line in lines if line.startswith("  ")]
        if plain:
            paragraphs.append("\n".join(plain))
        if listed:
            paragraphs.append("\n".join(["```text", *listed, "```"]))
    return "\n\n".join(paragraphs).replace("<", "&lt;")


def _cell(comment: str) -> str:
    return " ".join(comment.split()).replace("<", "&lt;")


def _service(service: Any, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"## {service.name}"
    yield _text(comments.get(path, ""))
    for index, method in enumerate(service.method):
        takes = ("stream of " if method.client_streaming else "") + _link(method.input_type)
        gives = ("stream of " if method.server_streaming else "") + _link(method.output_type)
        yield f"### {service.name}.{method.name}"
        yield f"{takes} → {gives}"
        yield _text(comments.get((*path, METHOD, index), ""))


def _message(message: Any, outer: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{outer}{message.name}"
    yield _heading(name)
    yield _text(comments.get(path, ""))
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = [
        [
            str(field.number),
            code(field.name),
            _type(field, entries),
            _cell(comments.get((*path, FIELD, index), "")),
        ]
        for index, field in enumerate(message.field)
    ]
    yield table(["", "field", "type", "meaning"], rows) if rows else "It has no fields."
    for index, nested in enumerate(message.nested_type):
        yield from _message(nested, f"{name}.", (*path, NESTED, index), comments)
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.", (*path, NESTED_ENUM, index), comments)


def _enum(enum: Any, outer: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield _heading(f"{outer}{enum.name}")
    yield _text(comments.get(path, ""))
    rows = [
        [str(value.number), code(value.name), _cell(comments.get((*path, VALUE, index), ""))]
        for index, value in enumerate(enum.value)
    ]
    yield table(["", "value", "meaning"], rows)


def _heading(name: str) -> str:
    return f"### {name} {{ #{_anchor(name)} }}"


def _anchor(name: str) -> str:
    return name.lower().replace(".", "-")


def _link(type_name: str) -> str:
    """A link to a message or enum of ours; the name of another one."""
    name = type_name.removeprefix(".")
    if not name.startswith(f"{PACKAGE}."):
        return code(name.rpartition(".")[2])
    ours = name.removeprefix(f"{PACKAGE}.")
    return f"[{ours}](#{_anchor(ours)})"


def _type(field: Any, entries: dict[str, Any]) -> str:
    if field.type_name:
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = (_type(inner, {}) for inner in entry.field)
            return f"map of {key} to {value}"
        named = _link(field.type_name)
    else:
        kinds = descriptor_pb2.FieldDescriptorProto.Type
        named = kinds.Name(field.type).removeprefix("TYPE_").lower()
    repeated = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    if repeated:
        return f"list of {named}"
    return f"{named}, optional" if field.proto3_optional else named
