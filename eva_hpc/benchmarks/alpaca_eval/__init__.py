"""AlpacaEval 2.0: what its judge is asked, and the official arithmetic from judgments to numbers."""
