"""Ports that tests are given: of each process its own, and free."""

import socket

import pytest

from .helpers.ports import Block, is_free


def test_two_processes_never_have_the_same_ports() -> None:
    one, other = Block(), Block()
    with one, other:
        assert not set(one.ports) & set(other.ports)


def test_a_block_is_free_again_when_its_process_has_ended() -> None:
    with Block() as one:
        ports = one.ports
    # Another run may have been quicker, and has it now.
    with Block() as other:
        assert other.ports == ports or not is_free(ports.start - 1)


def test_all_ports_are_given_before_one_is_given_again() -> None:
    with Block() as block:
        free = [port for port in block.ports if is_free(port)]
        assert [block.take(1)[0] for _ in free] == free
        assert block.take(1)[0] == free[0]


def test_a_port_on_which_somebody_listens_is_not_given() -> None:
    with Block() as block, socket.create_server(("127.0.0.1", block.ports[1])):
        assert not is_free(block.ports[1])
        assert block.ports[1] not in block.take(2)
        with pytest.raises(OSError, match="no port of this process is free"):
            block.take(len(block.ports))
