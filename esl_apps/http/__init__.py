"""The HTTP ports: one for each integrator, one for the operator."""
