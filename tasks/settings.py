"""All reading of the environment: what differs between machines, and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LONGEST_LINK_SECONDS = 7 * 24 * 3600
"""Source: Amazon S3 API reference, "Authenticating Requests: Using Query Parameters"."""


class StoreSettings(BaseSettings):
    """The S3-compatible store that releases go to."""

    model_config = SettingsConfigDict(env_prefix="CONVEYOR_STORE_", frozen=True, extra="ignore")

    endpoint: str | None = Field(
        None, description="URL of the S3-compatible server; absent for AWS itself."
    )
    bucket: str = Field("models", description="Bucket of the releases; it must exist.")
    region: str = Field("us-east-1", description="Region of the bucket.")
    access_key_id: str | None = Field(
        None, description="Access key; absent: boto3's own chain of profiles, files and roles."
    )
    secret_access_key: SecretStr | None = Field(None, description="Secret of the access key.")
    browser_url: str | None = Field(
        None,
        description="Where people browse the bucket; runs link to `<browser_url>/<key>`.",
    )
    public_endpoint: str | None = Field(
        None,
        description="URL of the store as people reach it, for links; absent: the endpoint.",
    )
    link_seconds: int = Field(
        LONGEST_LINK_SECONDS,
        ge=0,
        le=LONGEST_LINK_SECONDS,
        description=(
            "How long a run's links to its files open without credentials, for whoever has them; "
            "at most 604800 (7 days), 0: no links."
        ),
    )


class LocalSettings(BaseSettings):
    """Folders and code of one machine."""

    model_config = SettingsConfigDict(env_prefix="CONVEYOR_", frozen=True, extra="ignore")

    catalogue: Path = Field(Path("models"), description="Folder of the recipes.")
    cache: Path = Field(
        Path.home() / ".cache" / "onnx-conveyor", description="Folder of checked downloads."
    )
    scratch: Path | None = Field(
        None, description="Folder for a run's working files; absent: the system's own."
    )
    converter_packages: tuple[str, ...] = Field(
        ("tasks.converters",),
        description="Python packages whose modules are converters, as a JSON list.",
    )
    keep_after_seconds: float = Field(
        30,
        ge=0,
        description=(
            "A stage that took so much longer than sending its result (at 50 MB/s) leaves it in "
            "the bucket until its run ends: a run that is interrupted goes on from there. 0: all."
        ),
    )
    signing: Literal["key", "off"] = Field(
        "key", description="`key`: sign each release by a key pair; `off`: sign none."
    )
    signing_key: Path = Field(
        Path.home() / ".config" / "onnx-conveyor" / "signing.pem",
        description="Private key (PEM, elliptic curve); made at first use, `.pub` beside it.",
    )


class GpuSettings(BaseSettings):
    """The GPUs of one host, and how long a stage waits for one elsewhere."""

    model_config = SettingsConfigDict(env_prefix="CONVEYOR_GPU_", frozen=True, extra="ignore")

    devices: tuple[str, ...] | None = Field(
        None,
        description=(
            "GPUs that this host's workers may use, as a JSON list of what CUDA_VISIBLE_DEVICES "
            "takes; absent: those of `nvidia-smi`."
        ),
    )
    locks: Path = Field(
        Path("/tmp/onnx-conveyor-gpus"),  # noqa: S108 - all workers of a host must find it
        description="Folder of the GPUs' locks; all workers of a host must see the same one.",
    )
    require_runtime: bool = Field(
        default=True,
        description="Whether a worker refuses to start with an ONNX Runtime unfit for its pool.",
    )
    patience_seconds: float = Field(
        600,
        gt=0,
        description="How long a GPU stage waits while no worker is seen, before it fails.",
    )
    start_seconds: float = Field(
        300,
        gt=0,
        description="How long a worker may take to start a GPU stage that it has taken.",
    )
    poll_seconds: float = Field(
        2, gt=0, description="How often a GPU stage that runs elsewhere is looked at."
    )


@cache
def store_settings() -> StoreSettings:
    """Read the store's settings, once in a process."""
    return StoreSettings()


@cache
def local_settings() -> LocalSettings:
    """Read this machine's settings, once in a process."""
    return LocalSettings()


@cache
def gpu_settings() -> GpuSettings:
    """Read what this machine knows of GPUs, once in a process."""
    return GpuSettings()


def converter_packages() -> tuple[str, ...]:
    """Return the packages whose modules are converters."""
    return local_settings().converter_packages
