# Run R's mclust on rows and a partition: one M-step, EM to its end, seconds per iteration.
#
#   Rscript mclust.R FOLDER N D K TOL ITERATIONS MODEL...
#
# FOLDER contains rows.bin (N x D doubles, column after column) and labels.bin (N integers from 1). The script prints a line
# for each model: name, number of parameters, log-likelihood of rows and partition after one M-step, log-likelihood after that
# step, log-likelihood after EM, number of iterations, seconds per iteration. It writes the covariances of the M-step,
# (D, D, K), to MODEL.bin in FOLDER.
suppressMessages(library(mclust))
arguments <- commandArgs(TRUE)
folder <- arguments[1]
n <- as.integer(arguments[2]); d <- as.integer(arguments[3]); k <- as.integer(arguments[4])
tol <- as.numeric(arguments[5]); iterations <- as.integer(arguments[6]); models <- arguments[-(1:6)]
X <- matrix(readBin(file.path(folder, "rows.bin"), "double", n * d), n, d)
z <- unmap(readBin(file.path(folder, "labels.bin"), "integer", n), groups = seq_len(k))
control <- emControl(tol = c(tol, 1e-9), itmax = c(iterations, 10000))
# With the default control, VEE, EVE and VVE stop early: log-likelihoods of the rows are off by up to 0.07.
to_its_end <- emControl(tol = c(tol, 1e-16), itmax = c(iterations, 1000000))
for (model in models) {
  step <- mstep(data = X, modelName = model, z = z, warn = FALSE, control = to_its_end)
  writeBin(as.double(step$parameters$variance$sigma), file.path(folder, paste0(model, ".bin")))
  log_dens <- cdens(data = X, modelName = model, parameters = step$parameters, logarithm = TRUE)
  complete <- sum((log_dens + rep(log(step$parameters$pro), each = n))[z == 1])
  once <- estep(data = X, modelName = model, parameters = step$parameters, warn = FALSE)$loglik
  seconds <- system.time(fit <- me(data = X, modelName = model, z = z, control = control, warn = FALSE))[["elapsed"]]
  done <- as.numeric(attr(fit, "info"))[1]  # the attribute has no names for some models
  cat(model, nMclustParams(model, d, k), format(complete, digits = 15), format(once, digits = 15), format(fit$loglik, digits = 15), done,
      format(seconds / max(done, 1), digits = 6), "\n")
}
