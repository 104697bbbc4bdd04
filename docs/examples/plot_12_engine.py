"""
An EM loop of your own
======================

``fastgmm.engine`` has the parts of a fit: statistics of blocks that add, and an M-step. Here some rows have known
labels, which the estimators do not support: the statistics of labelled and unlabelled rows are simply added.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm.engine import accumulate, accumulate_labels, maximise, predict

# %%
# Two crossing clusters. Without labels, EM has several ways to explain them.
rng = np.random.default_rng(2)
rotation = np.array([[np.cos(0.8), -np.sin(0.8)], [np.sin(0.8), np.cos(0.8)]])
long = rng.normal(size=(2, 1_500, 2)) * [3.0, 0.5]
X = np.concatenate([long[0] @ rotation.T, long[1] @ rotation])
truth = np.repeat([0, 1], 1_500)
known = rng.choice(len(X), 30, replace=False)
unknown = np.setdiff1d(np.arange(len(X)), known)

# %%
# The labelled rows alone give the start. Each iteration adds the statistics of the labelled rows to those of the
# others.
parameters = maximise(accumulate_labels(truth[known], np.zeros((2, 2)), X[known]))
history = []
for _ in range(15):
    labelled = accumulate_labels(truth[known], parameters.means, X[known])
    unlabelled = accumulate(parameters, X[unknown])
    history.append(unlabelled.mean_log_likelihood)
    parameters = maximise(labelled + unlabelled)
labels = predict(parameters, X)
print(f"{np.mean(labels == truth):.1%} of the rows have the right label")

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), width_ratios=[1.2, 1], layout="constrained")
axes[0].scatter(*X.T, c=labels, s=3, cmap="coolwarm", alpha=0.5, linewidths=0)
axes[0].scatter(*X[known].T, c=truth[known], s=50, cmap="coolwarm", edgecolor="black", label="known label (30 rows)")
axes[0].set(title="labels", xlabel="feature 1", ylabel="feature 2", aspect="equal")
axes[0].legend(loc="lower right")
axes[1].plot(range(1, len(history) + 1), history)
axes[1].set(title="unlabelled rows", xlabel="iteration", ylabel="log-likelihood, nats per row")
axes[1].grid(alpha=0.3)
plt.show()
