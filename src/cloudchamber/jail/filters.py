"""The system calls a jailed policy may make, compiled to a seccomp program by libseccomp.

An allow-list: whatever is not on it fails with EPERM. Without ``clone``, ``fork`` and ``execve`` there is one process with one
thread, so nothing can be left working between two calls; without ``kill`` and ``F_SETOWN`` no signal goes anywhere; without ``utimensat``
and file locks nothing can be told to another candidate through a shared file; without ``prctl`` no wall can be taken down again.
"""

from __future__ import annotations

import errno
import fcntl
import tempfile
from functools import cache

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
FCNTL = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)  # no locks, no signals
# these say "not there" so that the C library takes its older way, which is then refused or allowed on its own
ABSENT = ("clone3", "openat2")


@cache
def program() -> bytes:
    """The compiled filter.

    Raises
    ------
    JailUnavailable
        If libseccomp is not installed.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise JailUnavailable(
            f"seccomp is not to be had ({error}): pip install 'cloudchamber[jail]' and the system library libseccomp2."
        ) from None
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for names, action in ((_ALLOWED.split(), pyseccomp.ALLOW), (ABSENT, pyseccomp.ERRNO(errno.ENOSYS))):
        for name in names:
            try:
                number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            except ValueError:
                continue  # not a call of this architecture
            if number >= 0:
                rules.add_rule(action, name)
    for command in FCNTL:
        rules.add_rule(pyseccomp.ALLOW, "fcntl", pyseccomp.Arg(1, pyseccomp.EQ, command))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
