"""``python -m tests.attack.watched serve …``: a node that says on SIGUSR2 what it holds.

One JSON line on standard error: ``{"held": {"greenlets": …, "objects": …}}``. It is counted after a collection,
by looking at every object there is: too dear for a metric.
"""

from esl_apps.__main__ import main  # patches gevent, so it goes first

# isort: split
import gc
import json
import signal
import sys

import gevent


def tell() -> None:
    # The node froze what was there at its start, which hides it from here, too.
    gc.unfreeze()
    gc.collect()
    objects = gc.get_objects()
    greenlets = sum(isinstance(one, gevent.Greenlet) and not one.dead for one in objects)
    print(json.dumps({"held": {"greenlets": greenlets, "objects": len(objects)}}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR2, lambda: gevent.spawn(tell))
    main()
