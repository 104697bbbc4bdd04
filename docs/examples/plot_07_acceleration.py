"""
Accelerated EM
==============

Where components overlap, EM creeps. SQUAREM extrapolates its steps, and accepts an extrapolation only if the
likelihood does not fall. A callback records the likelihood of each pass.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm import GaussianMixture

rng = np.random.default_rng(0)
centres = rng.normal(size=(6, 4)) * 1.6
X = np.concatenate([rng.normal(size=(4_000, 4)) + centre for centre in centres])


# %%
# Both fits begin at the same start, and run until a step raises the likelihood by less than 1e-7 nats per row.
def fit_and_record(acceleration):
    bounds = []

    def record(n_iter, lower_bound, parameters):
        bounds.append(lower_bound)

    model = GaussianMixture(6, tol=1e-7, max_iter=2_000, acceleration=acceleration, random_state=0, callback=record)
    model.fit(X)
    return model, np.array(bounds)


runs = {"plain EM": fit_and_record(None), "SQUAREM": fit_and_record("squarem")}
for name, (model, bounds) in runs.items():
    print(f"{name}: {model.n_iter_} passes, {bounds.max():.6f} nats per row")

# %%
# The distance to the highest likelihood against the number of passes over the rows.
limit = max(bounds.max() for _, bounds in runs.values())
fig, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
for name, (_, bounds) in runs.items():
    distance = limit - np.maximum.accumulate(bounds)
    ax.semilogy(np.arange(1, len(bounds) + 1), np.where(distance > 1e-9, distance, np.nan), label=name)
ax.set(xlabel="passes over the rows", ylabel="nats per row below the limit")
ax.legend()
ax.grid(alpha=0.3)
plt.show()
