"""The commands of `vaeserve`, one file each."""
