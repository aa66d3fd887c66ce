"""``python -m esl_apps.sandbox``."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from esl_apps.sandbox import run  # noqa: E402

sys.exit(run())
