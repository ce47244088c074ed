"""A process that another one started ends with it."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process, a child by `multiprocessing`, as soon as its parent is gone, however that ended and whatever
    is computed here: nobody waits for the result. What was saved stays, locks are released by the system. A process
    that was started in another way goes on."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
