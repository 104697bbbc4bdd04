"""Model-based agglomeration of rows."""

from fastgmm.engine import agglomerate

from .common import make_rows


class Hierarchy:
    """Seconds for merging all rows, by criterion."""

    params = (["2000x6", "272x2"], ["EII", "VII", "EEE", "VVV"])
    param_names = ("rows", "model")
    number, repeat, warmup_time = 1, (3, 15, 5.0), 0

    def setup(self, rows, model):
        n_rows, n_features = map(int, rows.split("x"))
        self.X = make_rows(n_rows, n_features, 4)
        agglomerate(self.X, model)  # compile before the clock runs

    def time_agglomerate(self, rows, model):
        agglomerate(self.X, model)
