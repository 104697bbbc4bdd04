"""Progress bar for a pass over rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(n_samples: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield a function of the number of rows done.

    `n_samples` is None if the number of rows is unknown.
    """
    try:
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
        from rich.text import Text
    except ImportError:
        raise ImportError("A progress bar needs rich: pip install 'fastgmm[io]'") from None

    class Rate(ProgressColumn):
        """A column with the number of rows per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed / 1e6:.2f} million rows/s")

    columns = TextColumn("{task.completed:,.0f} rows"), BarColumn(), Rate(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("rows", total=n_samples)
        yield lambda n: progress.advance(task, n)
