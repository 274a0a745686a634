"""What changes and measures agents: training, evaluation, boards, and the command line."""
