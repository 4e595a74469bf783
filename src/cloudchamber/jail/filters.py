"""The system calls a jailed policy or command may make, compiled to seccomp programs by libseccomp.

For policies an allow-list: whatever is not on it fails with EPERM. Without ``clone``, ``fork`` and ``execve`` there is one process with one
thread, so nothing can be left working between two calls; without ``kill`` and ``F_SETOWN`` no signal goes anywhere; without ``utimensat``
and file locks nothing can be told to another candidate through a shared file; without ``prctl`` no wall can be taken down again.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

from cloudchamber.core.errors import JailUnavailable

_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek dup dup2 dup3 fsync fdatasync
open openat stat lstat fstat newfstatat fstatat64 statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents getdents64
getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 ftruncate truncate umask fallocate
mmap munmap mprotect mremap madvise brk msync
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending sigaltstack sigreturn
futex get_robust_list set_robust_list rseq set_tid_address sched_yield sched_getaffinity getcpu membarrier
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage
getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid getpriority uname sysinfo getrlimit
poll ppoll select pselect6 getrandom arch_prctl exit exit_group restart_syscall
"""
_FCNTL = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)  # no locks, no signals
# these say "not there" so that the C library takes its older way, which is then refused or allowed on its own
_ABSENT = "clone3 openat2"
_DENIED = """
ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp unshare setns
mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick move_mount open_tree mount_setattr
bpf perf_event_open keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd personality
kexec_load kexec_file_load init_module finit_module delete_module open_by_handle_at name_to_handle_at
swapon swapoff reboot acct quotactl quotactl_fd syslog iopl ioperm settimeofday clock_settime adjtimex clock_adjtime
fanotify_init lookup_dcookie uselib vmsplice nfsservctl move_pages migrate_pages mbind set_mempolicy
"""
_NEW_NAMESPACE = (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000)


@cache
def program() -> bytes:
    """The compiled filter.

    Raises
    ------
    JailUnavailable
        If libseccomp is not installed.
    """
    pyseccomp = _library()
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in _known(_ALLOWED):
        rules.add_rule(pyseccomp.ALLOW, name)
    for name in _known(_ABSENT):
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    for command in _FCNTL:
        rules.add_rule(pyseccomp.ALLOW, "fcntl", pyseccomp.Arg(1, pyseccomp.EQ, command))
    return _compiled(rules)


@cache
def deny_list() -> bytes:
    """The compiled filter of a whole command, which needs processes, threads and pipes: all is allowed but what leads out or deep down.

    Raises
    ------
    JailUnavailable
        If libseccomp is not installed.
    """
    pyseccomp = _library()
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused = pyseccomp.ERRNO(errno.EPERM)
    for name in _known(_DENIED):
        rules.add_rule(refused, name)
    for name in _known(_ABSENT):
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    for bit in _NEW_NAMESPACE:
        rules.add_rule(refused, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, bit, bit))
    rules.add_rule(refused, "socket", pyseccomp.Arg(0, pyseccomp.NE, socket.AF_UNIX))
    rules.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, 0x5412))  # TIOCSTI: typing into a terminal
    return _compiled(rules)


def _known(names: str) -> Iterator[str]:
    """Those of the names that are calls of this architecture."""
    pyseccomp = _library()
    for name in names.split():
        try:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        except ValueError:
            continue
        if number >= 0:
            yield name


def _compiled(rules: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _library() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise JailUnavailable(
            f"seccomp is not to be had ({error}): it needs the Python package pyseccomp and the system library libseccomp2."
        ) from None
    return pyseccomp
