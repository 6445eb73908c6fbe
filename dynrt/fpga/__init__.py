"""Energy measurement sessions: links, meters, the board, and an estimator that refuses to report noise."""
