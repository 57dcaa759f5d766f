"""What else needs a process of its own, in this one, where that is not what a test is about: seconds less for each."""

import io
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

from fastai.callback.core import Callback

from adaptseg.cli import main


def adaptseg(*argv):
    "As subprocess.run gives it: returncode, stdout, stderr."
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(a) for a in argv])
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
            err.write("" if isinstance(e.code, int) else str(e.code))
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


class PowerCut(Callback):
    "The run ends here, after so many batches."

    order, run_valid = 70, False

    def __init__(self, batches):
        self.left = batches

    def after_batch(self):
        self.left -= 1
        if not self.left:
            raise RuntimeError("power cut")
