"""The stages of an experiment, one file or package for each command. They read and write files of run folders."""
