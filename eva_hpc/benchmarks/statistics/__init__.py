"""Coverage, intervals over questions, and paired comparisons."""
