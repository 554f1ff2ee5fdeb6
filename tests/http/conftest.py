"""Contexts that a test may change."""

import ssl

import pytest
import trustme


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """TLS for a server on this machine."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    """TLS for a client of that server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
