"""What the tunnel's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import trustme


@pytest.fixture
def tls_files(authority: trustme.CA, tmp_path: Path) -> Path:
    """The files of a certificate for both hosts."""
    certificate = authority.issue_cert("web.example.org", "other.example.org")
    path = tmp_path / "chain.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    return path
