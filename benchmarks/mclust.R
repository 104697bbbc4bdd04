# R's mclust on rows and a starting partition: one M-step, EM to its end, seconds for an iteration.
#
#   Rscript mclust.R FOLDER N D K TOL MODEL...
#
# FOLDER has rows.bin (N x D doubles, column after column) and labels.bin (N integers from 1). A line for each model:
# name, parameters, what an M-step raises (the log-likelihood of rows and partition), log-likelihood after one M-step, after
# EM, its iterations, seconds for an iteration. The covariances of the M-step go to MODEL.bin in FOLDER, (D, D, K).
suppressMessages(library(mclust))
arguments <- commandArgs(TRUE)
folder <- arguments[1]
n <- as.integer(arguments[2]); d <- as.integer(arguments[3]); k <- as.integer(arguments[4])
tol <- as.numeric(arguments[5]); iterations <- as.integer(arguments[6]); models <- arguments[-(1:6)]
X <- matrix(readBin(file.path(folder, "rows.bin"), "double", n * d), n, d)
z <- unmap(readBin(file.path(folder, "labels.bin"), "integer", n), groups = seq_len(k))
control <- emControl(tol = c(tol, 1e-9), itmax = c(iterations, 10000))
# By default VEE, EVE and VVE stop early, and are off by up to 0.07 in the rows' log-likelihood.
to_its_end <- emControl(tol = c(tol, 1e-16), itmax = c(iterations, 1000000))
for (model in models) {
  step <- mstep(data = X, modelName = model, z = z, warn = FALSE, control = to_its_end)
  writeBin(as.double(step$parameters$variance$sigma), file.path(folder, paste0(model, ".bin")))
  log_dens <- cdens(data = X, modelName = model, parameters = step$parameters, logarithm = TRUE)
  complete <- sum((log_dens + rep(log(step$parameters$pro), each = n))[z == 1])
  once <- estep(data = X, modelName = model, parameters = step$parameters, warn = FALSE)$loglik
  seconds <- system.time(fit <- me(data = X, modelName = model, z = z, control = control, warn = FALSE))[["elapsed"]]
  done <- as.numeric(attr(fit, "info"))[1]  # for some models it has no names
  cat(model, nMclustParams(model, d, k), format(complete, digits = 15), format(once, digits = 15), format(fit$loglik, digits = 15), done,
      format(seconds / max(done, 1), digits = 6), "\n")
}
