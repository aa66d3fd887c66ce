"""``python -m tests.attack.watched serve …``: a node that reports on SIGUSR2 what it holds.

One JSON line on standard error: ``{"held": {"greenlets": …, "objects": …}}``. It collects garbage, then counts every
object, which would be too slow for a metric.
"""

from esl_apps.__main__ import main  # patches gevent, so it goes first

# isort: split
import gc
import json
import signal
import sys

import gevent


def tell() -> None:
    # The node froze the objects of its start; without this they would be missing here.
    gc.unfreeze()
    gc.collect()
    objects = gc.get_objects()
    greenlets = sum(isinstance(one, gevent.Greenlet) and not one.dead for one in objects)
    print(json.dumps({"held": {"greenlets": greenlets, "objects": len(objects)}}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR2, lambda: gevent.spawn(tell))
    main()
