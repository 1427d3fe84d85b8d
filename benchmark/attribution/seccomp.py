"""The system calls that a sandbox forbids, as a program of the kernel's filter machine (seccomp, classic BPF).

bubblewrap takes such a program as it is and gives none of its own. Forbidden is what makes new namespaces, mounts, or
memory that belongs to no process and that nobody would count; what looks into other processes; and the parts of the
kernel that break most often. A forbidden call fails with EPERM, `clone3`, whose arguments a filter cannot see, with
ENOSYS, so that the C library takes `clone`.
"""

import errno
import platform
import struct

from attriboard.base.errors import InputError

# Audit names of the machine types, and the numbers of the calls (arch/x86/entry/syscalls/syscall_64.tbl;
# include/uapi/asm-generic/unistd.h).
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FORBIDDEN = {
    "x86_64": {
        "shmget": 29, "ptrace": 101, "personality": 135, "pivot_root": 155, "mount": 165, "umount2": 166,
        "swapon": 167, "init_module": 175, "quotactl": 179, "kexec_load": 246, "add_key": 248, "request_key": 249,
        "keyctl": 250, "unshare": 272, "vmsplice": 278, "perf_event_open": 298, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "finit_module": 313, "memfd_create": 319, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        "umount2": 39, "mount": 40, "pivot_root": 41, "quotactl": 60, "vmsplice": 75, "personality": 92,
        "unshare": 97, "kexec_load": 104, "init_module": 105, "ptrace": 117, "shmget": 194, "add_key": 217,
        "request_key": 218, "keyctl": 219, "swapon": 224, "perf_event_open": 241, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
        "finit_module": 273, "memfd_create": 279, "bpf": 280, "userfaultfd": 282,
    },
}  # fmt: skip
_FORBIDDEN_EVERYWHERE = {  # calls since Linux 5.1 have one number on all machines
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW… of clone(2)
_X32 = 0x40000000  # the second table of numbers that x86-64 has
_FAMILIES = (1, 2, 10, 16)  # of sockets: Unix, IPv4, IPv6, netlink; namespaces hold them, unlike AF_VSOCK

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; little-endian low halves


def seccomp_program(machine: str | None = None) -> bytes:
    """The filter, as an array of `struct sock_filter`.

    Args:
        machine: type of the machine, as `platform.machine` names it; by default this one.

    Raises:
        InputError: a machine whose calls are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise InputError(f"--sandbox: knows the system calls of {' and '.join(_ARCHITECTURES)}, not of {machine}")
    refuse, absent = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, absent),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, absent),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, absent),
    ]
    for number in (*_FORBIDDEN[machine].values(), *_FORBIDDEN_EVERYWHERE.values()):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    program += [
        (_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, len(_FAMILIES) + 2, _SOCKET[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        *((_EQUAL, len(_FAMILIES) - position, 0, family) for position, family in enumerate(_FAMILIES)),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
