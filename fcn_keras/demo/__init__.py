"""`fcn-keras demo`: a page on which a model segments photographs."""
