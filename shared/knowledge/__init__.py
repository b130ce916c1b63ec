"""Knowledge: the approved text that a draft may take its facts from."""
