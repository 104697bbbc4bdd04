"""Analysis of fitted mixtures: model search, bootstrap, merging of components."""
