"""Questions to fitted mixtures: search over models, bootstrap, merging of components."""
