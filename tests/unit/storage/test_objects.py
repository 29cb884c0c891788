"""Addresses of object storage."""

import pytest

from wfc_dist.errors import ConfigError
from wfc_dist.storage.objects import Objects, require_no_secret


@pytest.mark.parametrize(
    "url", ["s3://KEY:hidden@bucket/x", "s3://KEY:hid/den@bucket", "s3://KEY%3Ahidden@bucket/x", "s3:/K:hidden@b"]
)
def test_an_address_with_a_key_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="with a password or a key in front of '@'") as refused:
        require_no_secret(url, "run.dir")
    assert "den" not in refused.value.message


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/x", "http://host:80/a@2x.wav", "hf://datasets/google/fleurs@main", "abfs://container@account/x", "me@host:x"],
)
def test_other_addresses_pass(url: str) -> None:
    require_no_secret(url, "run.dir")


@pytest.mark.parametrize("url", ["s3://my bucket/runs", "s3:///runs", "s3://bücket/r"])
def test_what_is_no_bucket_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a bucket"):
        Objects(url).list()
