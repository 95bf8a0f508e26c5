"""Observations to codes and poses: Levenberg-Marquardt, multi-start, pose search, hypotheses, priors."""
