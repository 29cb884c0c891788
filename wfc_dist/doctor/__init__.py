"""`wfc doctor`: what is wrong with an installation, a machine or a site, and what to do about it. Needs no package to start."""
