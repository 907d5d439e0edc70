"""Memory that a step on the CPU has freed stays with the process, for the next step."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>
NEVER = -1  # as a size: the greatest there is


def keep_freed_memory() -> bool:
    """Tells glibc to hand no freed memory back to the kernel, and returns whether it was told.

    By default glibc maps every large tensor of a step anew and unmaps it once it is freed, and the kernel clears its
    pages again at each first touch, which takes time (scripts/train_speed.py measures it). The arithmetic does not
    change; the process keeps the most that it has needed. This holds for the whole process until it ends, so a command
    may call it, and a library function should not. Where the environment already says what malloc does
    (MALLOC_MMAP_MAX_, GLIBC_TUNABLES, ...), that is left alone, and so is every other C library.
    """
    said = any(name.startswith('MALLOC_') for name in os.environ) or 'malloc' in os.environ.get('GLIBC_TUNABLES', '')
    if said or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
