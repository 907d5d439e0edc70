"""Memory that a training step on the CPU frees stays with the process for the next step."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>
NEVER = -1  # as a size_t: the largest


def keep_freed_memory() -> bool:
    """Tells glibc to return no freed memory to the kernel; False where it was not told.

    By default glibc maps every large tensor of a step anew and unmaps it once it is freed, and the kernel clears its
    pages again at each first touch, which takes time (scripts/train_speed.py measures it). The arithmetic does not
    change, and the process keeps the memory of its largest step until it ends. That is for a command to decide, not for
    a library function. Settings of malloc in the environment (MALLOC_MMAP_MAX_, GLIBC_TUNABLES, ...) are respected, and
    other C libraries are left alone.
    """
    said = any(name.startswith('MALLOC_') for name in os.environ) or 'malloc' in os.environ.get('GLIBC_TUNABLES', '')
    if said or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
