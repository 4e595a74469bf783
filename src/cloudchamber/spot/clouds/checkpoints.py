"""Checkpoints in object storage, one bucket per region: a version counts only when its manifest, written last, is there."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.errors import MissingExtra

from .checkpoint import Checkpoint, CheckpointError, File, describe, read_progress

_MANIFEST = "manifest.json"
_SMALL_BYTES = 1 << 26  # larger objects go in parts, side by side


class CheckpointStore:
    """The checkpoints of one run, in one bucket per region of any S3 service.

    Parameters
    ----------
    regions : tuple of str
        Region of every zone, in the order of the zones.
    prefix : str
        Start of the buckets' names; the region follows.
    endpoint_url : str or None
        The S3 service; None is AWS.
    options : dict
        More arguments of ``boto3.client``, such as credentials.

    Raises
    ------
    MissingExtra
        If boto3 is not installed.
    """

    def __init__(self, regions: tuple[str, ...], prefix: str, endpoint_url: str | None = None, **options: Any) -> None:
        try:
            import boto3
            from boto3.exceptions import Boto3Error
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise MissingExtra("keeping checkpoints in S3 needs boto3", "localcloud") from None
        self.regions, self.is_aws = regions, endpoint_url is None
        self.buckets = tuple(_bucket(prefix, region) for region in regions)
        self._faults = (Boto3Error, BotoCoreError, ClientError)
        config = Config(retries={"total_max_attempts": 2, "mode": "standard"}, connect_timeout=5, read_timeout=60)
        self.client = boto3.client("s3", endpoint_url=endpoint_url, config=config, **options)

    def create(self) -> None:
        """Create the buckets that do not exist yet.

        Raises
        ------
        CheckpointError
            If the service refuses.
        """
        for region, bucket in dict(zip(self.regions, self.buckets, strict=True)).items():
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}} if self.is_aws and region != "us-east-1" else {}
            try:
                self.client.create_bucket(Bucket=bucket, **where)
            except (self.client.exceptions.BucketAlreadyOwnedByYou, self.client.exceptions.BucketAlreadyExists):
                continue
            except self._faults as error:
                raise CheckpointError(f"cannot create bucket {bucket}: {error}") from error

    def newest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint of all regions, None when there is none.

        Raises
        ------
        CheckpointError
            If a bucket cannot be listed.
        """
        found = [self._newest_of(bucket) for bucket in dict.fromkeys(self.buckets)]
        return max((each for each in found if each is not None), key=lambda each: (each.version, each.hops), default=None)

    def upload(self, folder: Path, zone: int, version: str, lives: Callable[[], bool] = lambda: True) -> Checkpoint:
        """Store a folder that nobody writes to as a new version, then forget all but the newest two of its region.

        ``lives`` is asked between objects; once it says no the rest is not sent, as when the machine dies.

        Raises
        ------
        CheckpointError
            If anything fails; the version then does not count.
        InputError
            If the job's ``progress`` is not a number in [0, 1].
        """
        bucket = self.buckets[zone]
        files: dict[str, File] = {}
        checkpoint = Checkpoint(version, zone, read_progress(folder), 0, files)
        try:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                name = path.relative_to(folder).as_posix()
                files[name] = describe(path)
                if lives():
                    self.client.upload_file(str(path), bucket, _key(version, "files", name))
            if not lives():
                raise CheckpointError(f"the instance died while uploading checkpoint {version} to {bucket}.")
            return self._complete_with(bucket, checkpoint)
        except (*self._faults, OSError) as error:
            raise CheckpointError(f"uploading checkpoint {version} to {bucket} failed: {error}") from error

    def download(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Replace the folder's contents by the checkpoint's, every file verified; a damaged version never counts again.

        Raises
        ------
        CheckpointError
            If a file is missing or differs from the manifest, the service fails, or the disk is full.
        """
        bucket = self.buckets[checkpoint.zone]
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, file in checkpoint.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not self._fetch(bucket, _key(checkpoint.version, "files", name), path, file.size_bytes) or describe(path) != file:
                    self.client.delete_object(Bucket=bucket, Key=_key(checkpoint.version, _MANIFEST))
                    raise CheckpointError(f"{name} of checkpoint {checkpoint.version} in {bucket} is not what was uploaded.")
        except (*self._faults, OSError) as error:
            raise CheckpointError(f"downloading checkpoint {checkpoint.version} from {bucket} failed: {error}") from error

    def holds(self, checkpoint: Checkpoint, zone: int) -> bool:
        """Return whether the zone's region has this version already, so that nothing need be copied.

        Raises
        ------
        CheckpointError
            If the service fails.
        """
        return checkpoint.version in self._versions(self.buckets[zone])

    def copy(self, checkpoint: Checkpoint, zone: int) -> Checkpoint:
        """Copy a checkpoint to the region of another zone; until that is complete it counts as lying where it was.

        Raises
        ------
        CheckpointError
            If the service fails.
        """
        source, target = self.buckets[checkpoint.zone], self.buckets[zone]
        try:
            for name, file in checkpoint.files.items() if not self.holds(checkpoint, zone) else ():
                key = _key(checkpoint.version, "files", name)
                if file.size_bytes < _SMALL_BYTES:
                    self.client.copy_object(CopySource={"Bucket": source, "Key": key}, Bucket=target, Key=key)
                else:
                    self.client.copy({"Bucket": source, "Key": key}, target, key)
            return self._complete_with(target, msgspec.structs.replace(checkpoint, zone=zone, hops=checkpoint.hops + 1))
        except self._faults as error:
            raise CheckpointError(f"copying checkpoint {checkpoint.version} from {source} to {target} failed: {error}") from error

    def ask_to_stop(self, zone: int, instance: int) -> None:
        """Leave word for the agent of an instance to stop its job, upload and end.

        Raises
        ------
        CheckpointError
            If the service fails.
        """
        try:
            self.client.put_object(Bucket=self.buckets[zone], Key=f"stops/{instance:06d}", Body=b"")
        except self._faults as error:
            raise CheckpointError(f"cannot ask instance {instance} to stop: {error}") from error

    def is_asked_to_stop(self, zone: int, instance: int) -> bool:
        """Whether there is such word.

        Raises
        ------
        CheckpointError
            If the service fails.
        """
        try:
            return bool(self.client.list_objects_v2(Bucket=self.buckets[zone], Prefix=f"stops/{instance:06d}").get("KeyCount"))
        except self._faults as error:
            raise CheckpointError(f"cannot see whether instance {instance} is to stop: {error}") from error

    def _fetch(self, bucket: str, key: str, path: Path, size_bytes: int) -> bool:
        """Whether there was such an object."""
        from botocore.exceptions import ClientError

        try:
            if size_bytes < _SMALL_BYTES:
                path.write_bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
            else:
                self.client.download_file(bucket, key, str(path))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                return False
            raise
        return True

    def _complete_with(self, bucket: str, checkpoint: Checkpoint) -> Checkpoint:
        """Write the manifest, and forget all but the newest two versions: their manifests first, so that a torn deletion shows."""
        self.client.put_object(Bucket=bucket, Key=_key(checkpoint.version, _MANIFEST), Body=msgspec.json.encode(checkpoint))
        versions = self._versions(bucket)
        for version in sorted(versions)[:-2]:
            for key in sorted(versions[version], key=lambda key: not key.endswith(_MANIFEST)):
                self.client.delete_object(Bucket=bucket, Key=key)
        return checkpoint

    def _newest_of(self, bucket: str) -> Checkpoint | None:
        for version in sorted(self._versions(bucket), reverse=True):
            try:
                body = self.client.get_object(Bucket=bucket, Key=_key(version, _MANIFEST))["Body"].read()
                return msgspec.json.decode(body, type=Checkpoint)
            except msgspec.DecodeError:  # not one of ours, or damaged: it does not count
                continue
            except self._faults as error:
                raise CheckpointError(f"cannot read checkpoint {version} in {bucket}: {error}") from error
        return None

    def _versions(self, bucket: str) -> dict[str, list[str]]:
        """The complete versions of a region and all their keys."""
        keys: dict[str, list[str]] = {}
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="checkpoints/"):
                for item in page.get("Contents", ()):
                    keys.setdefault(item["Key"].split("/")[1], []).append(item["Key"])
        except self._faults as error:
            raise CheckpointError(f"cannot list the checkpoints in {bucket}: {error}") from error
        return {version: each for version, each in keys.items() if _key(version, _MANIFEST) in each}


def _key(*parts: str) -> str:
    return "/".join(("checkpoints", *parts))


def _bucket(prefix: str, region: str) -> str:
    """A valid bucket name; long ones keep a hash so that they stay different."""
    name = re.sub(r"[^a-z0-9-]+", "-", f"{prefix}-{region}".lower()).strip("-")
    return name if len(name) <= 63 else name[:50] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]
