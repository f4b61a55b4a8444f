"""Arena-Hard-Auto v0.1 and v2.0: what its judge is asked, and the official arithmetic from judgments to numbers."""
