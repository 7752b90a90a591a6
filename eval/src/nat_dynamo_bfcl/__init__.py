"""The Berkeley Function Calling Leaderboard's multi-turn base set as a NAT workflow, dataset and evaluator."""
