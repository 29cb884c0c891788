"""Messages repeat no credentials."""

import pytest

from wfc_dist.errors import InputError, explain_os


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("s3://KEY:hidden@bucket/runs", "s3://***@bucket/runs"),
        ("s3://KEY:hid/den@bucket/runs", "s3://***@bucket/runs"),
        ("s3:/KEY:hidden@bucket/runs", "s3:/***@bucket/runs"),
        ("gs://hidden@bucket/runs", "gs://***@bucket/runs"),
        ("https://x/y?a=b&X-Amz-Signature=hidden&c=d", "https://x/y?a=b&X-Amz-Signature=***&c=d"),
        ("hf://datasets/google/fleurs@main", "hf://datasets/google/fleurs@main"),
        ("s3://bucket/runs?versionId=3", "s3://bucket/runs?versionId=3"),
        ("abfs://container@account/runs", "abfs://container@account/runs"),
        ("node1:6379 and me@node2", "node1:6379 and me@node2"),
    ],
)
def test_credentials_of_urls_are_left_out(quoted: str, shown: str) -> None:
    assert str(InputError(f"'{quoted}' is refused; give another")) == f"'{shown}' is refused; give another"
    assert explain_os(OSError(2, "No such file or directory", quoted)).startswith(f"{shown}: ")
