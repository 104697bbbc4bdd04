"""Pictures of fitted mixtures and searches, drawn with matplotlib."""
