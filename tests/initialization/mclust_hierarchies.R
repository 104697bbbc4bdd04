# Write mclust_hierarchies.json: rows, and the partitions that R's mclust 6.0.0 finds by agglomeration.
#
#   cd tests/initialization && Rscript mclust_hierarchies.R
#
# Agglomeration starts again from its own partition after each merge (the argument `partition`). Without this,
# hc(X, "VVV") merges now and then a pair that is not the best by its own criterion, since it keeps old values.
suppressMessages(library(mclust))
suppressMessages(library(jsonlite))
set.seed(1)
jitter_of <- function(X, size) round(X + size * matrix(rnorm(length(X)), nrow(X)), 6)
mixture <- function(n, d, k) {
  label <- sample(k, n, TRUE)
  X <- matrix(rnorm(n * d), n, d)
  for (j in 1:k) {
    rows <- label == j
    X[rows, ] <- X[rows, , drop = FALSE] %*% matrix(rnorm(d * d), d, d) + matrix(3 * rnorm(d), sum(rows), d, byrow = TRUE)
  }
  round(X, 6)
}
two <- mixture(60, 2, 3)
sets <- list(
  faithful = jitter_of(as.matrix(faithful), 1e-3),
  iris = jitter_of(as.matrix(iris[, 1:4]), 1e-3),
  mixture = mixture(120, 3, 4),
  wide = mixture(80, 7, 3),
  copies = two[rep(1:60, sample(3, 60, TRUE)), ]
)
groups <- 2:9
out <- lapply(sets, function(X) {
  X <- unname(X)
  partitions <- lapply(c(EII = "EII", VII = "VII", EEE = "EEE", VVV = "VVV"), function(model) {
    label <- dupPartition(X)
    found <- list()
    while (length(unique(label)) > min(groups)) {
      n <- length(unique(label))
      label <- hclass(hc(X, model, use = "VARS", partition = label, minclus = n - 1), n - 1)[, 1]
      if ((n - 1) %in% groups) found[[as.character(n - 1)]] <- match(label, unique(label)) - 1
    }
    found
  })
  once <- lapply(c(EII = "EII", VII = "VII", EEE = "EEE", VVV = "VVV"), function(model) {
    z <- hclass(hc(X, model, use = "VARS"), groups)
    setNames(lapply(seq_along(groups), function(g) match(z[, g], unique(z[, g])) - 1), groups)
  })
  cat(dim(X), sapply(names(partitions), function(m) sum(sapply(as.character(groups), function(g) identical(once[[m]][[g]], partitions[[m]][[g]])))), "\n")
  list(X = X, partitions = partitions)
})
writeLines(toJSON(out, digits = 10), "mclust_hierarchies.json")
