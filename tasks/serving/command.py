"""``layout triton|tfserving|kserve MODEL [VERSION|alias] --out DIR``: lay a release out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import ReleaseError
from tasks.serving.kserve_layout import SERVICE_ACCOUNT, lay_out_kserve, upload
from tasks.serving.source import from_bucket, from_folder
from tasks.serving.tfserving_layout import lay_out_tfserving
from tasks.serving.triton_layout import MAX_BATCH_SIZE, lay_out_triton
from tasks.settings import store_settings
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.serving.folders import Layout
    from tasks.serving.source import ReleaseSource

_SERVERS = {
    "triton": "a model repository for NVIDIA Triton, with config.pbtxt",
    "tfserving": "a folder for TensorFlow Serving",
    "kserve": "an InferenceService, and in the bucket the layout that it names",
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse keeps its type private
    """Add the command ``layout``; its options go to ``run``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "layout", help="lay a release out for a model server", description=__doc__
    )
    _add_servers(parser)
    return parser


def _add_servers(parser: argparse.ArgumentParser) -> None:
    servers = parser.add_subparsers(dest="server", required=True)
    for name, text in _SERVERS.items():
        one = servers.add_parser(name, help=text, description=text)
        one.add_argument("model", help="name of a released model")
        one.add_argument("which", nargs="?", default="latest", help="version or alias")
        one.add_argument("--out", type=Path, required=True, help="folder to write to")
        one.add_argument("--release", type=Path, help="read the release from this folder instead")
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        if name != "kserve":
            one.add_argument("--upload", action="store_true", help="put it into the bucket too")
        if name != "tfserving":
            one.add_argument("--max-batch-size", type=_positive, default=MAX_BATCH_SIZE)
        if name == "triton":
            one.add_argument("--variant", default="", help="serve this variant, such as int8")
        if name == "kserve":
            one.add_argument("--runtime", choices=("triton", "tfserving"), default="triton")
            one.add_argument("--storage-uri", help="name this URI, and upload nothing")
            one.add_argument("--service-account", default=SERVICE_ACCOUNT)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"expected 1 or more (got {number})"
        raise argparse.ArgumentTypeError(message)
    return number


def run(options: argparse.Namespace) -> int:
    """Lay a release out, print what was made, and return the exit code."""
    try:
        layout = _lay_out(options)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(f"{layout.model_dump_json(indent=2)}\n")
        return 0
    lines = [f"{layout.model} version {layout.version} for {layout.server} in {layout.folder}:"]
    lines += [f"  {each.path}  sha256 {each.sha256[:12]}" for each in layout.files]
    lines += [f"  {note}" for note in layout.notes]
    lines += [f"In the bucket: {layout.uri}"] if layout.uri else []
    lines += [f"Serve it: {layout.command}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _lay_out(options: argparse.Namespace) -> Layout:
    store = open_store(store_settings())
    release: ReleaseSource = (
        from_folder(options.release, options.model)
        if options.release
        else from_bucket(store, options.model, options.which)
    )
    if options.server != "kserve":
        layout = _for_server(options.server, release, options.out, options)
        return (
            layout.model_copy(update={"uri": upload(layout, store)}) if options.upload else layout
        )
    uri = options.storage_uri
    if uri is None:
        with TemporaryDirectory(prefix="conveyor-layout-") as folder:
            uri = upload(_for_server(options.runtime, release, Path(folder), options), store)
    return lay_out_kserve(
        release.manifest, options.runtime, uri, options.out, options.service_account
    )


def _for_server(
    server: str, release: ReleaseSource, out: Path, options: argparse.Namespace
) -> Layout:
    if server == "tfserving":
        return lay_out_tfserving(release, out)
    return lay_out_triton(release, out, options.max_batch_size, getattr(options, "variant", ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command by itself; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.serving", description=__doc__)
    _add_servers(parser)
    return run(parser.parse_args(arguments))
